"""The one primitive: what a sweep is, who makes it for which cost and device, and over ranks."""

from .choice import afresh, choose, in_single, narrow, one_kernel, passes, placed
from .over_ranks import OverRanks
from .portable import BySize, Group, blocks, column_sums, empty, exp_, exponent, groups, least_rows
from .protocol import (
    Accelerates,
    Coarsens,
    Drops,
    Gathers,
    Moves,
    Remembers,
    Repeats,
    Rules,
    Sparse,
    Sweep,
    Thins,
    Whole,
    elasticity,
    weightless,
)
from .ranks import ALONE, Grid, ProcessGroup, Ranks, same


__all__ = [
    "ALONE",
    "Accelerates",
    "BySize",
    "Coarsens",
    "Drops",
    "Gathers",
    "Grid",
    "Group",
    "Moves",
    "OverRanks",
    "ProcessGroup",
    "Ranks",
    "Remembers",
    "Repeats",
    "Rules",
    "Sparse",
    "Sweep",
    "Thins",
    "Whole",
    "afresh",
    "blocks",
    "choose",
    "column_sums",
    "elasticity",
    "empty",
    "exp_",
    "exponent",
    "groups",
    "in_single",
    "least_rows",
    "narrow",
    "one_kernel",
    "passes",
    "placed",
    "same",
    "weightless",
]
