"""Entropic optimal transport on PyTorch: fast, certified, and ready for training loops."""

from . import adapters
from .acceleration import Anderson, Nesterov, Plain
from .adapters import (
    SelaLabels,
    SwAVLoss,
    SwAVQueue,
    normalize_prototypes_,
    sela_labels,
    swapped_prediction_loss,
    swav_codes,
    swav_codes_from_features,
)
from .anneal import Anneal
from .certificate import Certificate
from .cost import Dense, PointCloud
from .exact import solve_exact
from .newton import Newton
from .result import Transport
from .sinkhorn import Progress, Sinkhorn
from .solve import solve
from .status import ConvergenceError, ConvergenceWarning, Status


__version__ = "0.1.0"

__all__ = [
    "Anderson",
    "Anneal",
    "Certificate",
    "ConvergenceError",
    "ConvergenceWarning",
    "Dense",
    "Nesterov",
    "Newton",
    "Plain",
    "PointCloud",
    "Progress",
    "SelaLabels",
    "Sinkhorn",
    "Status",
    "SwAVLoss",
    "SwAVQueue",
    "Transport",
    "adapters",
    "normalize_prototypes_",
    "sela_labels",
    "solve",
    "solve_exact",
    "swapped_prediction_loss",
    "swav_codes",
    "swav_codes_from_features",
]
