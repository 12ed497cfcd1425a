"""Sweeps in plain PyTorch, for any device: kernels stored, shared, sparse, of axes, or not held."""

from .blockwise import exponent
from .by_size import PASS, BySize, Group, groups
from .cpu import column_sums, empty, exp_
from .near import Near, blocks, by_sorts, least_rows
from .on_the_fly import OnTheFly
from .separable import Separable
from .shared_cost import SharedKernel
from .stored import StoredKernel


__all__ = [
    "PASS",
    "BySize",
    "Group",
    "Near",
    "OnTheFly",
    "Separable",
    "SharedKernel",
    "StoredKernel",
    "blocks",
    "by_sorts",
    "column_sums",
    "empty",
    "exp_",
    "exponent",
    "groups",
    "least_rows",
]
