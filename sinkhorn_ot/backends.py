"""Which implementation of the sweep serves which cost, batch and device."""

import torch

from ._torch import Absorbed, Shared, Streamed
from .cost import Dense
from .problem import Problem
from .sweep import Sweep


# entries of a kernel that may be stored although the cost is not
_BUDGET = 1 << 24


def choose(problem: Problem, tol: float) -> Sweep:
    """Return the implementation for `problem`, whose kernel is good to `tol`."""
    single = problem.dtype == torch.float32 and tol >= 1e-7
    store = torch.float32 if single else torch.float64
    batch, n, m = problem.shape
    if batch > 1 and problem.shared and _one_reg(problem):
        span = (problem.bounds.high - problem.bounds.low) / float(problem.reg[0])
        for dtype in (store, torch.float64):
            if span <= Shared.SPAN[dtype]:
                return Shared(problem, dtype)
    if batch * n * m <= _BUDGET or (isinstance(problem.cost, Dense) and not problem.shared):
        return Absorbed(problem, store)
    return Streamed(problem)


def passes(problem: Problem) -> Sweep:
    """Return an implementation that holds no storage, for the few passes a result may need."""
    return Streamed(problem)


def _one_reg(problem: Problem) -> bool:
    return bool((problem.reg == problem.reg[0]).all())
