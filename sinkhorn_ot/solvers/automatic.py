"""What method="auto" does: solve small problems whole, choose a solver for the others."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem
from sinkhorn_ot.results import Solution, Status, judged
from sinkhorn_ot.sweeps import Sweep, Whole, choose, narrow

from .acceleration import Plain
from .newton import Newton, Switch
from .presolve import Posed, pose
from .price import price
from .progress import Callback, Progress
from .rescue import cheap_to_ask, exact_start, impossible, small_enough, told_impossible
from .sinkhorn import Anneal, Sinkhorn
from .small import solve_small
from .state import Keeper


# a Newton step is quick only from nearby: small stages, followed along a curve
NEWTON = Sinkhorn(Newton(), Anneal(start=0.02, factor=2.0, tol=1e-2, max_iter=100, follow=2))
SWITCH = Sinkhorn(Switch(), Anneal(tol=0.02, max_iter=60, follow=1), slow=NEWTON.anneal)
SWEEPS = Sinkhorn()
# what comes nearest where there is no plan to arrive at
_PLAINLY = Sinkhorn(Plain(), None)
MethodName = Literal["auto", "sinkhorn", "newton"]
METHODS: dict[MethodName, Sinkhorn | None] = {"auto": None, "sinkhorn": SWEEPS, "newton": NEWTON}

# ends that a plan which does not exist may lead to
_MISSED = (Status.STALLED, Status.NOT_FINITE, Status.MAX_ITER)
# sweeps towards a plan that does not exist
_FUTILE = 20
# sweeps without progress after which other ways are tried
_PATIENCE = 150
_PATIENTLY = replace(SWEEPS, patience=_PATIENCE)
# plain sweeps in one launch, after which other steps had better go on
_PLAIN = 512
# pairs of problems that are so small that a batch of them makes Newton's steps together
_TINY = 2000
# multiply-adds of a Hessian up to which one costs no more than the sweeps it saves, and up to which
# that is so of what is very sharp and about as wide as it is tall
_HESSIAN, _LARGE = 3e7, 1.1e9
_VERY_SHARP, _TALL = 2000.0, 4


@dataclass(frozen=True)
class Limits:
    """When a run ends.

    Attributes:
        tol: Relative L1 marginal error to reach.
        max_iter: Sweeps allowed.
        callback: Told of every sweep; True stops.
        keeper: Who keeps where its runs stand.
    """

    tol: float
    max_iter: int
    callback: Callback | None
    keeper: Keeper | None = None


def run(
    posed: Posed, solver: Sinkhorn | None, limits: Limits, *, alone: bool
) -> tuple[Solution, Sweep | None, str]:
    """Solve a problem by `solver`, or by what suits it best.

    Args:
        posed: The problem and where to start.
        solver: Who solves it; None leaves the choice.
        limits: When to end.
        alone: Whether nobody has to be told of every sweep.

    Returns:
        The solution, the sweep that led to it, if one was needed, and the name of the method.
    """
    found, sweep, name = _run(posed, solver, limits, alone)
    if posed.v is None or Status.NOT_FINITE not in found.status:
        return found, sweep, name
    lost = [k for k, status in enumerate(found.status) if status is Status.NOT_FINITE]
    made = max(int(found.n_iter[k]) for k in lost)
    if made >= limits.max_iter:
        return found, sweep, name
    # a start may be worse than none
    at = torch.tensor(lost, device=posed.v.device)
    left = replace(limits, max_iter=limits.max_iter - made)
    some = _part(posed.problem, at)
    cold, _, name = _run(replace(posed, problem=some, v=None), solver, left, alone)
    cold = replace(cold, n_iter=cold.n_iter + found.n_iter[at])
    return found.put(at, cold), sweep, name


def _run(
    posed: Posed, solver: Sinkhorn | None, limits: Limits, alone: bool
) -> tuple[Solution, Sweep | None, str]:
    p, free = posed.problem, solver is None and alone
    if p.spread is not None:
        return _spread(posed, solver, limits)
    if solver is None and not _whole(p):
        return _batch(posed, limits)
    found, sweep, name = _tried(posed, solver, limits, free)
    found = judged(p, sweep, found, limits.tol)
    missed = [k for k, status in enumerate(found.status) if status in _MISSED]
    for k in missed if small_enough(p) else ():
        one = p.select(torch.tensor([k], device=p.a.device))
        if why := impossible(one, limits.tol):
            found = told_impossible(found, k, why)
        elif solver is None and found.status[k] is not Status.MAX_ITER:
            found, name = _rescued(found, k, one, name, limits)
    return found, sweep, name


def _spread(
    posed: Posed, solver: Sinkhorn | None, limits: Limits
) -> tuple[Solution, Sweep | None, str]:
    """Sweep what nobody sees whole: all who hold rows do the same."""
    p = posed.problem
    sweep, chosen = choose(p, limits.tol), suitable(p) if solver is None else solver
    found = _by(chosen, sweep, posed.v, limits)
    return judged(p, sweep, found, limits.tol), sweep, chosen.name


def _whole(p: Problem) -> bool:
    """Say whether a problem is solved as one: by itself, on a GPU, or so small and so sharp."""
    batch, n, m = p.shape
    if batch == 1 or p.a.device.type != "cpu" or 0 in p.relax:
        return True
    return n * m < _TINY and suitable(p) is NEWTON


def _batch(posed: Posed, limits: Limits) -> tuple[Solution, Sweep | None, str]:
    """Sweep a batch together, and solve those alone that cost less so."""
    p, v, cost = posed.problem, posed.v, price(posed.problem, limits.tol)
    found, sweep, name = Solution.none(p), None, ""
    # who is told of sweeps is told of all problems at once
    together = v is not None or limits.callback is not None
    joined = [k for k, apart in enumerate(cost.apart.tolist()) if together or not apart]
    if joined:
        at = torch.tensor(joined, device="cpu")
        sweep = choose(_part(p, at), limits.tol)
        swept = _PATIENTLY(
            sweep,
            v=None if v is None else v[at],
            tol=limits.tol,
            max_iter=limits.max_iter,
            callback=limits.callback,
            price=cost.select(at),
            keeper=limits.keeper,
        )
        found, name = found.put(at, swept), _PATIENTLY.name
    # a last look at who arrived; the others have theirs when they do
    if done := [k for k in joined if found.status[k] is Status.CONVERGED]:
        at = torch.tensor(done, device="cpu")
        found = found.put(at, judged(_part(p, at), None, found.select(at), limits.tol))
    missed, ends = [k for k, status in enumerate(found.status) if status in _MISSED], []
    for k in missed:
        end, own = _alone(found, k, p, limits)
        ends.append(end)
        name = SWITCH.name if joined else own
        if end.status[0] is Status.STOPPED:
            break
    if ends:
        # put back at once: one by one each would copy all
        found = found.put(torch.tensor(missed[: len(ends)], device="cpu"), Solution.joined(ends))
        if ends[-1].status[0] is Status.STOPPED:
            status = [Status.STOPPED if s in _MISSED else s for s in found.status]
            found = replace(found, status=status)
    return found, sweep, name


def _part(p: Problem, index: Tensor) -> Problem:
    """Return the problems at `index`; all of them without a copy."""
    return p if len(index) == p.shape[0] else p.select(index)


def _alone(found: Solution, k: int, p: Problem, limits: Limits) -> tuple[Solution, str]:
    """Go on with problem `k` of a batch by itself; return what is best of it."""
    at, made = torch.tensor([k], device="cpu"), int(found.n_iter[k])
    one, before = p.select(at), found.select(at)
    if made >= limits.max_iter:
        before = judged(one, None, before, limits.tol)
        why = impossible(one, limits.tol) if small_enough(one) else None
        return (told_impossible(before, 0, why) if why else before), ""
    told = limits.callback
    left = Limits(
        limits.tol,
        limits.max_iter - made,
        told and (lambda now: told(replace(now, n_iter=now.n_iter + made))),
        limits.keeper,
    )
    assert before.error is not None
    start = before.v if made and bool(torch.isfinite(before.error).all()) else None
    posed = _bounded(pose(one, None, start), p)
    other, _, name = run(posed, None, left, alone=told is None)
    # a batch has no use for its kernel, whose memory is the next one's
    other = posed.undo(replace(other, scaled=None))
    other = replace(other, n_iter=other.n_iter + made) if made else other
    assert other.error is not None
    better = other.status[0] in (Status.CONVERGED, Status.INFEASIBLE)
    if not better and bool(other.error >= before.error):
        other = replace(before, n_iter=other.n_iter, status=other.status)
    return other, name


def _bounded(posed: Posed, p: Problem) -> Posed:
    """Return one problem of a batch with the bounds of its own cost."""
    one = posed.problem
    # who chose among points has seen it; of a problem that lost all its weights there are none
    if p.shared or posed.support is not None or not bool((one.a > 0).any()):
        return posed
    return replace(posed, problem=replace(one, bounds=one.cost.validate()))


def _tried(
    posed: Posed, solver: Sinkhorn | None, limits: Limits, free: bool
) -> tuple[Solution, Sweep | None, str]:
    """Solve whole what is small, if one is free to, and the rest by the solver, or what suits."""
    p, v = posed.problem, posed.v
    if free and p.shape[0] == 1 and (answer := _in_numpy(posed, limits)):
        begun, name = answer
        if begun.status[0] is Status.CONVERGED:
            return begun, None, name
        made = int(begun.n_iter[0])
        fewer = replace(limits, max_iter=limits.max_iter - made)
        found, sweep, name = _tried(replace(posed, v=begun.v), solver, fewer, free=False)
        return replace(found, n_iter=found.n_iter + made), sweep, name
    sweep = choose(p, limits.tol)
    if cheap_to_ask(p) and (why := impossible(p, limits.tol)):
        few = replace(limits, max_iter=min(_FUTILE, limits.max_iter))
        return told_impossible(_by(_PLAINLY, sweep, v, few), 0, why), sweep, _PLAINLY.name
    chosen = _patient(p) if solver is None else solver
    answer = _in_one_launch(sweep, limits) if free and v is None else None
    if answer is None:
        return _by(chosen, sweep, v, limits), sweep, chosen.name
    found, name = answer
    if left := [k for k, s in enumerate(found.status) if s is not Status.CONVERGED]:
        at = torch.tensor(left, device=p.a.device)
        found = found.put(at, _by(chosen, sweep.select(at), None, limits))
    return found, sweep, name


def _patient(p: Problem) -> Sinkhorn:
    """Return the solver that suits, with the patience that other ways are worth."""
    chosen = suitable(p)
    return replace(chosen, patience=_PATIENCE) if small_enough(p) else chosen


def _rescued(
    found: Solution, k: int, p: Problem, name: str, limits: Limits
) -> tuple[Solution, str]:
    """Try other ways with problem `k` of a batch, which missed; keep what is best."""
    at = torch.tensor([k], device=p.a.device)
    for solver, start in ((NEWTON, exact_start), (SWEEPS, None), (NEWTON, None)):
        left = limits.max_iter - int(found.n_iter[k])
        v = start(p) if start else None
        if left < 1 or (start and v is None) or (not start and solver.name == name):
            continue
        sweep = choose(p, limits.tol)
        other = judged(p, sweep, _by(solver, sweep, v, replace(limits, max_iter=left)), limits.tol)
        other = replace(other, n_iter=other.n_iter + found.n_iter[k])
        assert found.error is not None
        assert other.error is not None
        if other.status[0] is Status.CONVERGED or not float(other.error) >= float(found.error[k]):
            found, name = found.put(at, other), solver.name
        if other.status[0] in (Status.CONVERGED, Status.STOPPED):
            break
    return found, name


def _by(solver: Sinkhorn, sweep: Sweep, v: Tensor | None, limits: Limits) -> Solution:
    return solver(
        sweep,
        v=v,
        tol=limits.tol,
        max_iter=limits.max_iter,
        callback=limits.callback,
        keeper=limits.keeper,
    )


def _in_one_launch(sweep: Sweep, limits: Limits) -> tuple[Solution, str] | None:
    """Let a sweep solve small problems whole, as far as plain steps get; None if it cannot."""
    found = None
    if isinstance(sweep, Whole):
        found = sweep.whole(min(_PLAIN, limits.max_iter), limits.tol)
    if found is None:
        return None
    u, v, error, n_iter = found
    status = [Status.CONVERGED if off <= limits.tol else Status.MAX_ITER for off in error.tolist()]
    if Status.CONVERGED not in status:
        return None
    return Solution(u, v, error, n_iter.to(torch.int64), status), "plain"


def _in_numpy(posed: Posed, limits: Limits) -> tuple[Solution, str] | None:
    """Solve a problem so small that it is solved whole; None if it is not."""
    most: dict[str, Any] = {"tol": limits.tol, "max_iter": limits.max_iter}
    answer = solve_small(posed.problem, v=posed.v, **most)
    if answer is None and posed.v is not None:
        # a start may be worse than none
        answer = solve_small(posed.problem, v=None, **most)
    if answer is not None and limits.callback:
        found = answer[0]
        assert found.error is not None
        limits.callback(Progress(int(found.n_iter.max()), float(found.error.max()), 0, 1.0))
    return answer


def suitable(problem: Problem) -> Sinkhorn:
    """Return the solver for a problem that is not solved whole.

    Newton's steps win from the start where plain sweeps need many and a Hessian costs no more than
    a few of them: sharp plans of small problems, and narrow ones of points in a plane. Elsewhere
    sweeps are accelerated until they crawl.
    """
    sharp = (problem.bounds.high - problem.bounds.low) / problem.least_reg
    if not problem.exact or problem.a.device.type != "cpu" or problem.beside is not None:
        return SWEEPS
    return NEWTON if sharp > _sharp_enough(problem) or narrow(problem) else SWITCH


def _sharp_enough(problem: Problem) -> float:
    """Return the spread of the cost over reg from which Newton's steps win."""
    batch, n, m = problem.shape[0], problem.rows, problem.shape[2]
    adds = n * m * m
    if adds > _HESSIAN:
        return _VERY_SHARP if adds <= _LARGE and n <= _TALL * m else math.inf
    if batch > 1 and problem.shared:
        return 300
    return 50 if adds <= _HESSIAN / 8 else 500
