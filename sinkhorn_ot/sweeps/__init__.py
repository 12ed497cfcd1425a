"""The one primitive: what a sweep is, who makes it for which cost and device, and over ranks."""

from .blockwise import exponent
from .choice import choose, in_single, one_kernel, passes
from .cpu import column_sums, empty, exp_
from .over_ranks import OverRanks
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
