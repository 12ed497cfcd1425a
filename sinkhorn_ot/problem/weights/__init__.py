"""What points weigh: weights as they are given, and which points of a padded batch are there."""

from .marginals import (
    HELD,
    Array,
    equal_mass,
    even,
    flat,
    held,
    mass_rtol,
    nothing,
    tensor,
    total,
    uniform,
    weights,
)
from .mask import There, masked


__all__ = [
    "Array",
    "HELD",
    "There",
    "equal_mass",
    "even",
    "flat",
    "held",
    "mass_rtol",
    "masked",
    "nothing",
    "tensor",
    "total",
    "uniform",
    "weights",
]
