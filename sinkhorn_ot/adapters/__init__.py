"""Codes and labels for the methods of the field: one per file, one call in a training loop."""

from .clot import CLOTLoss, clot_labels, nt_xent
from .deepcluster import DeepClusterLabels, deepcluster_labels
from .deepercluster import (
    DeeperClusterLabels,
    deepercluster_labels,
    deepercluster_loss,
    rotate,
)
from .dino import capi_codes, dino_codes
from .lloyd import k_means
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
    "CLOTLoss",
    "DeepClusterLabels",
    "DeeperClusterLabels",
    "LabelBank",
    "Routing",
    "SelaLabels",
    "SelaSchedule",
    "SwAVCodes",
    "SwAVLoss",
    "SwAVQueue",
    "align_marginal",
    "capi_codes",
    "clot_labels",
    "deepcluster_labels",
    "deepercluster_labels",
    "deepercluster_loss",
    "dino_codes",
    "gaussian_marginal",
    "k_means",
    "linear_heads",
    "mean_log_probs",
    "moe_router",
    "msn_codes",
    "normalize_prototypes_",
    "nt_xent",
    "rotate",
    "sela_labels",
    "sela_labels_from_features",
    "swapped_prediction_loss",
    "swav_codes",
    "swav_codes_from_features",
    "zipf_marginal",
]
