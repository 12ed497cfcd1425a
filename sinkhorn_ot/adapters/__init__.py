"""Codes and labels for the methods of the field: one per file, one call in a training loop."""

from .balanced import BalancedLabels, balanced_labels
from .clot import CLOTLoss, clot_labels, nt_xent
from .deepcluster import (
    DeepClusterLabels,
    DeeperClusterLabels,
    deepcluster_labels,
    deepercluster_labels,
    deepercluster_loss,
    k_means,
    rotate,
)
from .dino import capi_codes, dino_codes
from .moe import Routing, moe_router
from .msn import msn_codes
from .sela import (
    LabelBank,
    SelaLabels,
    SelaSchedule,
    align_marginal,
    gaussian_marginal,
    linear_heads,
    mean_log_probs,
    sela_labels,
    sela_labels_from_features,
    zipf_marginal,
)
from .swav import (
    SwAVCodes,
    SwAVLoss,
    SwAVQueue,
    normalize_prototypes_,
    swapped_prediction_loss,
    swav_codes,
    swav_codes_from_features,
)


__all__ = [
    "BalancedLabels",
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
    "balanced_labels",
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
