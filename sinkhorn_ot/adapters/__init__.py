"""Codes and labels for the methods of the field: one per file, one call in a training loop."""

from .sela import SelaLabels, sela_labels, sela_labels_from_features
from .sela_data import linear_heads, mean_log_probs
from .sela_schedule import LabelBank, SelaSchedule
from .sela_shares import aligned, gaussian_marginal, zipf_marginal
from .swav import swav_codes


__all__ = [
    "LabelBank",
    "SelaLabels",
    "SelaSchedule",
    "aligned",
    "gaussian_marginal",
    "linear_heads",
    "mean_log_probs",
    "sela_labels",
    "sela_labels_from_features",
    "swav_codes",
    "zipf_marginal",
]
