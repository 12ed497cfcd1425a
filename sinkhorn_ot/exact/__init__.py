"""Exact transport: engines for linear programs, and answers that prove themselves."""

from .engines import network_simplex
from .hall import stranded
from .linear_program import solve_exact
from .plain import unproved_plan
from .routes import NoPlan


__all__ = [
    "NoPlan",
    "network_simplex",
    "solve_exact",
    "stranded",
    "unproved_plan",
]
