"""The last look: the error of the plan itself, where rounding may hide it from the sweeps."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, checks
from sinkhorn_ot.sweeps import Sweep, passes

from .coupling import Entropic, marginal_error, masses
from .solution import Solution
from .status import Status


# what a measured error may confirm or refute; who stopped a solve knows what he did
_OPEN = (Status.CONVERGED, Status.MAX_ITER, Status.STALLED)
# logarithms of what a kernel, its scalings and a weight may be, together
_HELD = 2500.0


def judged(problem: Problem, sweep: Sweep | None, found: Solution, tol: float) -> Solution:
    """Return a solution with the errors of its plan, and the statuses that these mean.

    Sweeps are believed where all is within tol, rounding is fine and potentials have not drifted.
    In single precision there is nothing finer to measure with.
    """
    if problem.work != torch.float64 or not [s for s in found.status if s in _OPEN]:
        return found
    good = found.status.count(Status.CONVERGED) == len(found.status)
    # both potentials of a pair are rounded, and a row has many pairs
    digit = 10 * torch.finfo(problem.work).eps
    # where a kernel holds all pairs, potentials are no larger than the costs and what it holds
    if good and found.scaled is not None and _HELD * digit + 20 * problem.resolution <= tol:
        return found
    rounding = max(problem.resolution, digit * _largest(problem, found.u, found.v))
    if good and rounding <= tol:
        return found
    coupling = Entropic(passes(problem, sweep), found.u, found.v)
    marginals = masses(coupling)
    error = marginal_error(coupling, marginals)
    if found.error is not None and not problem.exact:
        # of masses below all numbers only the logarithms, which sweeps see, tell how far they are
        unseen = (error == 0) & (problem.summed(marginals[0], 0) == 0) & (found.error > rounding)
        error = torch.where(unseen, found.error, error)
    status = [_status(was, off, tol) for was, off in zip(found.status, error.tolist(), strict=True)]
    return replace(found, error=error, status=status)


def _status(was: Status, off: float, tol: float) -> Status:
    if was not in _OPEN:
        return was
    if off <= tol:
        return Status.CONVERGED
    if not math.isfinite(off):
        return Status.NOT_FINITE
    return Status.STALLED if was is Status.CONVERGED else was


def _largest(p: Problem, *potentials: Tensor) -> float:
    """Return the largest size of a potential; points without weight have none."""
    # rows may all be held by others
    some = [t for t in potentials if t.numel()]
    ends = checks.extremes(*some)
    if -math.inf in ends[::2]:
        ends = checks.extremes(*(t.masked_fill(t == -math.inf, 0.0) for t in some))
    largest = max(map(abs, ends))
    return largest if p.spread is None else float(-p.least(p.reg.new_tensor(-largest)))
