"""The weights of both sides: which points are there, and how much they hold together."""

from .mask import Mask, There, masked
from .masses import (
    HELD,
    Array,
    equal_mass,
    even,
    flat,
    held,
    mass_rtol,
    tensor,
    total,
    uniform,
    weights,
)


__all__ = [
    "Array",
    "HELD",
    "Mask",
    "There",
    "equal_mass",
    "even",
    "flat",
    "held",
    "masked",
    "mass_rtol",
    "tensor",
    "total",
    "uniform",
    "weights",
]
