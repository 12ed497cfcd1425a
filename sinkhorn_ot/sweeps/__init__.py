"""The one primitive: what a sweep is, who makes it for which cost and device, and over ranks."""

from .choice import choose, passes
from .cpu import empty, exp_
from .over_ranks import Group, OverRanks, agreed, any_of, everywhere, first_rank, reduced
from .protocol import Repeats, Sweep, Whole, elasticity, weightless
from .ranks import ALONE, Ranks


__all__ = [
    "ALONE",
    "Group",
    "OverRanks",
    "Ranks",
    "Repeats",
    "Sweep",
    "Whole",
    "agreed",
    "any_of",
    "choose",
    "elasticity",
    "empty",
    "everywhere",
    "exp_",
    "first_rank",
    "passes",
    "reduced",
    "weightless",
]
