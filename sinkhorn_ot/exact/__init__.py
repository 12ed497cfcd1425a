"""Exact transport: engines for linear programs, and answers that prove themselves."""

from .engines import network_simplex
from .hall import stranded
from .linear_program import solve_exact
from .plain import plan_of_plain


__all__ = [
    "network_simplex",
    "plan_of_plain",
    "solve_exact",
    "stranded",
]
