"""The one primitive: what a sweep is, who makes it for which cost and device, and over ranks."""

from .choice import choose, in_single, one_kernel, passes
from .over_ranks import OverRanks
from .portable import BySize, Group, blocks, column_sums, empty, exp_, exponent, groups
from .protocol import (
    Accelerates,
    Coarsens,
    Gathers,
    Moves,
    Remembers,
    Repeats,
    Rules,
    Sweep,
    Thins,
    Whole,
    elasticity,
    weightless,
)
from .ranks import ALONE, Grid, Ranks, same


__all__ = [
    "ALONE",
    "Accelerates",
    "BySize",
    "Coarsens",
    "Gathers",
    "Grid",
    "Group",
    "Moves",
    "OverRanks",
    "Ranks",
    "Remembers",
    "Repeats",
    "Rules",
    "Sweep",
    "Thins",
    "Whole",
    "blocks",
    "choose",
    "column_sums",
    "elasticity",
    "empty",
    "exp_",
    "exponent",
    "groups",
    "in_single",
    "one_kernel",
    "passes",
    "same",
    "weightless",
]
