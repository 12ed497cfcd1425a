"""Entropic optimal transport on PyTorch: fast, certified, and ready for training loops."""

from . import adapters
from .acceleration import Anderson, Nesterov, Plain
from .adapters import (
    LabelBank,
    SelaLabels,
    SelaSchedule,
    SwAVLoss,
    SwAVQueue,
    align_marginal,
    gaussian_marginal,
    linear_heads,
    mean_log_probs,
    normalize_prototypes_,
    sela_labels,
    sela_labels_from_features,
    swapped_prediction_loss,
    swav_codes,
    swav_codes_from_features,
    zipf_marginal,
)
from .anneal import Anneal
from .balanced import BalancedLabels, balanced_labels
from .certificate import Certificate
from .cost import Dense, PointCloud
from .exact import solve_exact
from .newton import Newton, Switch
from .result import Transport
from .sinkhorn import Progress, Sinkhorn
from .solve import solve
from .status import ConvergenceError, ConvergenceWarning, Status
from .stream import Streamed


__version__ = "0.1.0"

__all__ = [
    "Anderson",
    "Anneal",
    "BalancedLabels",
    "Certificate",
    "ConvergenceError",
    "ConvergenceWarning",
    "Dense",
    "LabelBank",
    "Nesterov",
    "Newton",
    "Plain",
    "PointCloud",
    "Progress",
    "SelaLabels",
    "SelaSchedule",
    "Sinkhorn",
    "Status",
    "Streamed",
    "SwAVLoss",
    "SwAVQueue",
    "Switch",
    "Transport",
    "adapters",
    "align_marginal",
    "balanced_labels",
    "gaussian_marginal",
    "linear_heads",
    "mean_log_probs",
    "normalize_prototypes_",
    "sela_labels",
    "sela_labels_from_features",
    "solve",
    "solve_exact",
    "swapped_prediction_loss",
    "swav_codes",
    "swav_codes_from_features",
    "zipf_marginal",
]
