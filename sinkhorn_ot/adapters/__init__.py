"""Codes and labels for the methods of the field: one per file, one call in a training loop."""

from .dino import capi_codes, dino_codes
from .moe import Routing, moe_router
from .msn import msn_codes
from .sela import SelaLabels, sela_labels
from .swav import SwAVCodes, swav_codes
from .swav_loss import (
    SwAVLoss,
    SwAVQueue,
    normalize_prototypes_,
    swapped_prediction_loss,
    swav_codes_from_features,
)


__all__ = [
    "Routing",
    "SelaLabels",
    "SwAVCodes",
    "SwAVLoss",
    "SwAVQueue",
    "capi_codes",
    "dino_codes",
    "moe_router",
    "msn_codes",
    "normalize_prototypes_",
    "sela_labels",
    "swapped_prediction_loss",
    "swav_codes",
    "swav_codes_from_features",
]
