"""SeLa: labels of a whole data set, their shares, and when to make them anew."""

from .data import linear_heads, mean_log_probs
from .labels import SelaLabels, sela_labels, sela_labels_from_features
from .schedule import LabelBank, SelaSchedule
from .shares import align_marginal, gaussian_marginal, zipf_marginal


__all__ = [
    "LabelBank",
    "SelaLabels",
    "SelaSchedule",
    "align_marginal",
    "gaussian_marginal",
    "linear_heads",
    "mean_log_probs",
    "sela_labels",
    "sela_labels_from_features",
    "zipf_marginal",
]
