"""SeLa: labels of a whole data set, their shares, and when to make them anew."""

from .arguments import Asked, asked_for
from .data import Scores, linear_heads, mean_log_probs
from .ending import Ending, joined
from .labels import SelaLabels, sela_labels, sela_labels_from_features
from .schedule import LabelBank, SelaSchedule
from .shares import align_marginal, gaussian_marginal, zipf_marginal
from .solving import solved


__all__ = [
    "Asked",
    "Ending",
    "LabelBank",
    "Scores",
    "SelaLabels",
    "SelaSchedule",
    "align_marginal",
    "asked_for",
    "gaussian_marginal",
    "joined",
    "linear_heads",
    "mean_log_probs",
    "sela_labels",
    "sela_labels_from_features",
    "solved",
    "zipf_marginal",
]
