"""Entropic optimal transport on PyTorch: fast, certified, and ready for training loops."""

from typing import TYPE_CHECKING, NoReturn

from . import adapters
from .adapters import (
    BalancedLabels,
    LabelBank,
    SelaLabels,
    SelaSchedule,
    SwAVLoss,
    SwAVQueue,
    align_marginal,
    balanced_labels,
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
from .derived import (
    Barycenter,
    Divergence,
    FreeBarycenter,
    LineTransport,
    SinkhornDistance,
    SinkhornDivergence,
    SlicedDistance,
    barycenter,
    free_barycenter,
    sinkhorn_distance,
    sinkhorn_divergence,
    sliced_distance,
    solve_1d,
)
from .exact import solve_exact
from .gradients import normalize
from .problem import CALLS as _CALLS
from .problem import KL, L2, TV, Between, Dense, GridCost, PointCloud, Streamed
from .results import (
    Certificate,
    ConvergenceError,
    ConvergenceWarning,
    Status,
    Transport,
    from_state_dict,
    plot,
)
from .solve import Checkpoint, solve
from .solvers import Anderson, Anneal, Nesterov, Newton, Plain, Progress, Sinkhorn, Switch


__version__ = "0.2.0"

__all__ = [
    "Anderson",
    "Anneal",
    "BalancedLabels",
    "Barycenter",
    "Between",
    "Certificate",
    "Checkpoint",
    "ConvergenceError",
    "ConvergenceWarning",
    "Dense",
    "Divergence",
    "FreeBarycenter",
    "GridCost",
    "KL",
    "L2",
    "LabelBank",
    "LineTransport",
    "Nesterov",
    "Newton",
    "Plain",
    "PointCloud",
    "Progress",
    "SelaLabels",
    "SelaSchedule",
    "Sinkhorn",
    "SinkhornDistance",
    "SinkhornDivergence",
    "SlicedDistance",
    "Status",
    "Streamed",
    "SwAVLoss",
    "SwAVQueue",
    "Switch",
    "TV",
    "Transport",
    "adapters",
    "align_marginal",
    "balanced_labels",
    "barycenter",
    "free_barycenter",
    "from_state_dict",
    "gaussian_marginal",
    "linear_heads",
    "mean_log_probs",
    "normalize",
    "normalize_prototypes_",
    "plot",
    "sela_labels",
    "sela_labels_from_features",
    "sinkhorn_distance",
    "sinkhorn_divergence",
    "sliced_distance",
    "solve",
    "solve_1d",
    "solve_exact",
    "swapped_prediction_loss",
    "swav_codes",
    "swav_codes_from_features",
    "zipf_marginal",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        """Say what calls of POT and GeomLoss are called here."""
        said = f"module {__name__!r} has no attribute {name!r}"
        if name in _CALLS:
            ours, module = _CALLS[name]
            said += f": write so.{ours}" + f", or import sinkhorn_ot.compat.{module}" * bool(module)
        raise AttributeError(said)
