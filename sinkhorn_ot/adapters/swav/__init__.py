"""SwAV: codes of scores and of features, the queue, the loss."""

from .assigned import SwAVCodes, assign
from .codes import codes_of, codes_of_named, swav_codes
from .features import SwAVQueue, normalize_prototypes_, queue_or_none, swav_codes_from_features
from .loss import SwAVLoss, swapped_prediction_loss


__all__ = [
    "SwAVCodes",
    "SwAVLoss",
    "SwAVQueue",
    "assign",
    "codes_of",
    "codes_of_named",
    "normalize_prototypes_",
    "queue_or_none",
    "swapped_prediction_loss",
    "swav_codes",
    "swav_codes_from_features",
]
