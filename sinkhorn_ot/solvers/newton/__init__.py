"""Newton's steps, and the linear systems that they solve."""

from .laplacian import (
    JOINED,
    by_diagonal,
    conjugate_gradients,
    factorised,
    solve_laplacian,
    solve_sparse,
)
from .levels import Levels
from .newton import Newton, Switch


__all__ = [
    "JOINED",
    "Levels",
    "Newton",
    "Switch",
    "by_diagonal",
    "conjugate_gradients",
    "factorised",
    "solve_laplacian",
    "solve_sparse",
]
