"""Codes and labels for the methods of the field: one per file, one call in a training loop."""

from .dino import capi_codes, dino_codes
from .moe import Routing, moe_router
from .msn import msn_codes
from .sela import SelaLabels, sela_labels, sela_labels_from_features
from .sela_data import linear_heads, mean_log_probs
from .sela_schedule import LabelBank, SelaSchedule
from .sela_shares import align_marginal, gaussian_marginal, zipf_marginal
from .swav import SwAVCodes, swav_codes
from .swav_features import SwAVQueue, normalize_prototypes_, swav_codes_from_features
from .swav_loss import SwAVLoss, swapped_prediction_loss


__all__ = [
    "LabelBank",
    "Routing",
    "SelaLabels",
    "SelaSchedule",
    "SwAVCodes",
    "SwAVLoss",
    "SwAVQueue",
    "align_marginal",
    "capi_codes",
    "dino_codes",
    "gaussian_marginal",
    "linear_heads",
    "mean_log_probs",
    "moe_router",
    "msn_codes",
    "normalize_prototypes_",
    "sela_labels",
    "sela_labels_from_features",
    "swapped_prediction_loss",
    "swav_codes",
    "swav_codes_from_features",
    "zipf_marginal",
]
