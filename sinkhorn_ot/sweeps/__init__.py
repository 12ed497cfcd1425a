"""The one primitive: what a sweep is, who makes it for which cost and device, and over ranks."""

from .choice import choose, in_single, one_kernel, passes
from .over_ranks import OverRanks
from .portable import column_sums, empty, exp_, exponent
from .protocol import (
    Accelerates,
    Moves,
    Repeats,
    Rules,
    Sweep,
    Thins,
    Whole,
    elasticity,
    weightless,
)
from .ranks import ALONE, Ranks, same


__all__ = [
    "ALONE",
    "Accelerates",
    "Moves",
    "OverRanks",
    "Ranks",
    "Repeats",
    "Rules",
    "Sweep",
    "Thins",
    "Whole",
    "choose",
    "column_sums",
    "elasticity",
    "empty",
    "exp_",
    "exponent",
    "in_single",
    "one_kernel",
    "passes",
    "same",
    "weightless",
]
