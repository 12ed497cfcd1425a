"""Sweeps in plain PyTorch, for any device: kernels that are stored, shared, sparse, or not held."""

from .blockwise import exponent
from .cpu import column_sums, empty, exp_
from .on_the_fly import OnTheFly
from .shared_cost import SharedKernel
from .stored import StoredKernel


__all__ = [
    "OnTheFly",
    "SharedKernel",
    "StoredKernel",
    "column_sums",
    "empty",
    "exp_",
    "exponent",
]
