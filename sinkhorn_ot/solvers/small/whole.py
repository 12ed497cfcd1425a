"""One small problem on a CPU, whole, in NumPy: there a call costs more than its arithmetic.

The road is the usual one: annealed, plain steps while they are about to arrive, Newton's on the
semi-dual (see `newton`) from there. What does not arrive this way is left to the others.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, shown
from sinkhorn_ot.results import Scaled, Solution, Status
from sinkhorn_ot.solvers.price import HESSIAN, PAIRS
from sinkhorn_ot.solvers.sinkhorn import Anneal
from sinkhorn_ot.solvers.steps import HELD
from sinkhorn_ot.sweeps import in_single

from .proximal import Proximal
from .scaling import NORMAL, Scaling
from .systems import Array


# so many times as many pairs are small if the cost spreads over so little of reg that plain steps
# may arrive, and twice as many if over so much; up to what spread single precision holds a kernel
_PLAIN, _MANY, _SHARP, _EASY = 110.0, 8, 500.0, 30.0
_STAGES = Anneal(start=0.05, tol=1e-2)
# beside penalties of other kinds Newton's steps are quick only from nearby, and up to so many
# multiply-adds each
_FINE, _PROXIMAL = Anneal(start=0.05, factor=2.0, tol=1e-2), 1 << 25
# how many plain steps may be to come: a Newton step costs some thirty, and large problems are swept
# in half the time; error from which others had better go on than begin
_SOON, _BEGUN = 80, 0.5
# a least cost that is next to nothing, beside the spread; least scaling in single precision
_NEXT, _SINGLE = 0.1, 1e-30
# penalties up to which the balance of both sides has the digits of a default tolerance, over reg
_STIFF = 1e5


def solve_small(
    p: Problem,
    *,
    v: Tensor | None,
    tol: float,
    max_iter: int,
) -> tuple[Solution, str] | None:
    """Solve one small problem whose points have weight; a marginal may be relaxed, but not free.

    Args:
        p: The problem.
        v: Scaled column potentials to start from, (1, m); they replace the annealing.
        tol: Relative L1 marginal error to reach.
        max_iter: Passes over the cost allowed.

    Returns:
        The solution and the name of the steps that led to it; None if it did not arrive. Where only
        plain steps are affordable, what they reached is for others to go on from.
    """
    batch, n, m = p.shape
    if batch > 1 or p.a.device.type != "cpu":
        return None
    sharp = (p.bounds.high - p.bounds.low) / p.least_reg
    # others sweep sharp plans in the precision of their costs, which here is double
    most = _PLAIN if p.dtype == torch.float64 else _EASY
    more = _MANY if sharp <= most else 1 if sharp < _SHARP else 2
    few = n * m <= PAIRS * max(more, 1 if p.exact else 4)
    if not few or not (p.exact or p.penalised or _soft(p)):
        return None
    with np.errstate(all="ignore"):
        found = (_penalised if p.penalised else _annealed)(p, v, tol, max_iter)
    if found is None:
        return None
    # from arrays, which takes a fraction of what it does from lists
    u, w = (torch.from_numpy(side[None]) for side in (found.u, found.v))
    error, n_iter = (torch.from_numpy(np.array([x])) for x in (found.error, found.n_iter))
    status = Status.CONVERGED if found.error <= tol else Status.MAX_ITER
    solution = Solution(u, w, error, n_iter, [status], scaled=found.scaled)
    return solution, "newton" if found.newton else "plain"


def _soft(p: Problem) -> bool:
    """Say whether penalties are such that both sides balance with all digits."""
    return all(0 < rho <= _STIFF * p.least_reg or rho == math.inf for rho in p.relax)


@shown
class _Answer(NamedTuple):
    u: Array
    v: Array
    error: float
    n_iter: int
    newton: bool
    scaled: Scaled | None


def _annealed(p: Problem, v: Tensor | None, tol: float, max_iter: int) -> _Answer | None:
    whole, b = p.a.numpy()[0], p.b.numpy()[0]
    log_a, reg, low, exact = np.log(whole), p.least_reg, p.bounds.low, p.exact
    # exact plans are found for a mass of one; beside penalties another mass is another plan
    mass = float(np.add.reduce(whole)) if exact else 1.0
    affordable = len(b) ** 2 * len(whole) <= HESSIAN
    factors = [1.0]
    # without Newton's steps there are plain ones alone, from anywhere
    if v is None and affordable:
        factors = _STAGES.stages(p.bounds.high - low, reg)
    psi = None if v is None else v.numpy()[0] - np.log(b)
    if v is None and not exact:
        psi = np.full(len(b), _share(p) / (factors[0] * reg))
    a, b = whole / mass, b / mass
    few = np.count_nonzero(a) < len(a) or np.count_nonzero(b) < len(b)
    if few or not (affordable or len(factors) == 1):
        return None
    # a least cost that is next to nothing need not be taken off: one pass less, and no digit
    low = 0.0 if 0 <= low <= _NEXT * (p.bounds.high - low) else low
    C = p.cost.rows(0, len(a))
    single = exact and v is None and not affordable and _in_single(p, C, tol)
    C = (C if single or C.dtype == torch.float64 else C.double()).numpy()[0]
    room = np.empty_like(C)
    spread = math.inf if p.bounds.forbids else p.bounds.high - low
    passes, newton, stage = 0, False, None
    soon = _SOON if affordable else _SOON // 2
    for factor in factors:
        goal = _STAGES.tol if factor > 1 else tol
        now = factor * reg
        R = p.relax[0] / now, p.relax[1] / now
        stage = Scaling((C, low), spread, 1 / now, a, b, psi, room, R, (low - p.shift) / now)
        stage.plain(goal, soon)
        arrived = stage.reached(goal)
        if affordable and not arrived:
            newton = True
            stage.newton(goal)
            arrived = stage.reached(goal)
        passes += stage.passes
        if not (arrived and passes <= max_iter):
            begun = exact and not affordable and tol < stage.error < _BEGUN and passes < max_iter
            return _answer(stage, log_a, passes, newton) if begun else None
        # potentials keep their units while reg shrinks
        psi = stage.psi * min(factor, _STAGES.factor) if factor > 1 else psi
    assert stage is not None
    if not exact and not stage.mass < torch.finfo(p.dtype).max ** HELD:
        return None
    # where nothing was cut off, and scalings have all their digits
    y = mass * stage.y
    if single and not min(y.min(), stage.x.min()) >= _SINGLE:
        return None
    scaled = Scaled(stage.K, y, stage.x) if stage.whole and np.minimum.reduce(y) >= NORMAL else None
    return _answer(stage, log_a, passes, newton)._replace(scaled=scaled)


def _penalised(p: Problem, v: Tensor | None, tol: float, max_iter: int) -> _Answer | None:
    """Solve beside penalties of other kinds, which are asked what they answer."""
    a, b = p.a.numpy()[0], p.b.numpy()[0]
    weigh = min(np.minimum.reduce(a), np.minimum.reduce(b)) > 0
    plain = weigh and p.penalties[1] is not None and 0 not in p.relax and not p.bounds.forbids
    if not plain or len(a) * len(b) ** 2 > _PROXIMAL:
        return None
    C = p.cost.rows(0, len(a)).double().numpy()[0]
    room, log_b = np.empty_like(C), np.log(b)
    factors = [1.0] if v is not None else _FINE.stages(p.bounds.high - p.bounds.low, p.least_reg)
    psi = np.zeros(len(b)) if v is None else v.numpy()[0] - log_b
    stage, before, passes, newton = None, None, 0, False
    for factor in factors:
        stage = Proximal(p.at(p.reg * factor) if factor > 1 else p, C, psi, room)
        arrived = stage.until(_FINE.tol if factor > 1 else tol)
        passes, newton = passes + stage.passes, newton or stage.newton
        if not (arrived and passes <= max_iter):
            return None
        # on along a line, in units of the cost
        now = stage.psi * factor
        psi = now if before is None else now + (now - before) / _FINE.factor
        psi, before = psi / max(factor / _FINE.factor, 1.0), now
    assert stage is not None
    if not (stage.held and stage.given.sum() < torch.finfo(p.dtype).max ** HELD):
        return None
    u = np.log(a) + stage.phi
    return _Answer(u, stage.psi + log_b, stage.error, passes, newton, stage.scaled)


def _answer(stage: Scaling, log_a: Array, passes: int, newton: bool) -> _Answer:
    return _Answer(log_a + stage.phi, stage.v, stage.error, passes, newton, None)


def _in_single(p: Problem, C: Tensor, tol: float) -> bool:
    """Say whether a kernel in single precision will do, and holds all pairs as normal numbers."""
    sharp = (p.bounds.high - p.bounds.low) / p.least_reg
    easy = sharp <= _EASY and not p.bounds.forbids
    return C.dtype == torch.float32 and easy and not p.shift and in_single(p, tol)


def _share(p: Problem) -> float:
    """Return what of the least cost the column potentials pay, where penalties split it."""
    rows, columns = (1 / rho for rho in p.relax)
    return (p.bounds.low - p.shift) * rows / (rows + columns)
