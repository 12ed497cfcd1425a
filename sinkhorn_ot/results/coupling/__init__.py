"""A plan and its potentials, however they are held: as potentials alone, whole, or by entries."""

from .coupling import (
    Coupling,
    Entropic,
    Stored,
    inner,
    levelled,
    log_plan,
    marginal_error,
    mass_optimality,
    masses,
    plan,
    relative,
)
from .scaled import Scaled
from .sparse import Sparse


__all__ = [
    "Coupling",
    "Entropic",
    "Scaled",
    "Sparse",
    "Stored",
    "inner",
    "levelled",
    "log_plan",
    "marginal_error",
    "mass_optimality",
    "masses",
    "plan",
    "relative",
]
