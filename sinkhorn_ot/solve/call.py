"""solve(): check the arguments, pose the problem, choose, run, put the answer back, report."""

import functools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.gradients import differentiable, stepwise
from sinkhorn_ot.problem import (
    ArrayLike,
    Cost,
    Mask,
    Problem,
    Streamed,
    Unbalanced,
    asked,
    make,
    masked,
)
from sinkhorn_ot.results import (
    Entropic,
    Leaves,
    OnFail,
    Solution,
    Status,
    Transport,
    told,
    transformable,
    uncompiled,
    waiting,
)
from sinkhorn_ot.solvers import (
    Callback,
    Limits,
    MethodName,
    Sinkhorn,
    fixed,
    parted,
    passing,
    pose,
    run,
    watch,
)
from sinkhorn_ot.sweeps import ProcessGroup, Sweep, choose, passes

from .checkpoints import Checkpoint
from .graph import graphed
from .options import MAX_ITER, Options
from .over_ranks import Groups, are_spread, posed_over_ranks, settled
from .ragged import SOLVE, SWEEP, Answer, Solve, by_size
from .start import Start, warm


@graphed
@uncompiled
@transformable
def solve(  # noqa: PLR0913
    cost: ArrayLike | Cost,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    reg: float | ArrayLike | None = None,
    *,
    mask: Mask | None = None,
    unbalanced: Unbalanced | None = None,
    mass: float | ArrayLike | None = None,
    method: MethodName | Sinkhorn = "auto",
    tol: float | None = None,
    max_iter: int = MAX_ITER,
    n_iter: int | None = None,
    init: Start | None = None,
    on_fail: OnFail = "warn",
    progress: bool = False,
    callback: Callback | None = None,
    group: ProcessGroup | Groups | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
) -> Transport:
    """Solve entropic optimal transport, for one problem or a batch of them.

    Finds min over P >= 0 with P 1 = a, P^T 1 = b of `<P, C> + reg * KL(P | a b^T)`.

    Args:
        cost: Tensor or array (..., n, m), `PointCloud(x, y)` or `GridCost`. inf forbids a pair.
        a: Source weights (..., n); None means 1/n each. Leading dimensions broadcast, and a cost
            shared by a whole batch is not copied.
        b: Target weights (..., m), of the same total as a; None means 1/m each.
        reg: Regularisation in units of the cost, above zero; one number or one per problem.
        mask: Which points of a padded batch are there, (rows, columns): each booleans (..., n), or
            whole numbers (...), how many of the first points are, or None for all. What the cost,
            its points, weights and starts hold elsewhere counts for nothing, whatever it is.
        unbalanced: Penalty on the marginals, one or (on a, on b), instead of exact ones: a number
            is the strength of a KL penalty, None is exact, 0 leaves a marginal free; or `KL(rho)`
            per point, `TV(rho)`, `L2(rho)`, `Between(low, high)`.
        mass: What to move in all, one number or one per problem: P 1 <= a and P^T 1 <= b instead of
            exact marginals.
        method: "auto", "sinkhorn", "newton", or a configured solver such as
            `Sinkhorn(Nesterov())`. What ran is told by the result's `method`.
        tol: Relative L1 marginal error to reach; None means 1e-9 in float64, 1e-6 otherwise.
        max_iter: Sweeps allowed, annealing included.
        n_iter: Run exactly this many plain sweeps at reg instead, without any check; on a GPU
            without waiting for the device.
        init: Warm start: an earlier result, or potentials (f, g), one of which may be None.
        on_fail: What to do where tol is not reached: "warn", "raise" `ConvergenceError`, "ignore".
        progress: Show a progress bar.
        callback: Called with a `Progress` after every sweep; returning True stops. Small problems,
            which "auto" solves whole without it, are then swept like others.
        group: Process group of torch.distributed over which the rows are spread: each rank passes
            its own rows of cost and a, in any number, none included, and everything else alike; a
            of None means 1/N each, of N rows in all. Two groups, if columns are spread too: of the
            ranks that hold other rows of the same columns, and other columns of the same rows. A
            cost that is a `DTensor` sharded so says it by itself. `mask`, `mass`, penalties that
            are no numbers, and derivatives are refused. Of the result `f`, `plan`, `log_plan`,
            `apply` and `barycentric` are those of this rank's rows, all other numbers those of the
            whole, the same on every rank to the last bit; `apply_transpose`, `certificate()` and
            `round()` are calls that all ranks must make together.
        checkpoint: A path, or a `Checkpoint`: while the solve runs it keeps there where it stands,
            and the same call goes on from there; one that had ended is answered at once. Small
            problems are swept as for a callback.

    Returns:
        Plan, potentials, values, bounds, and how far to trust them. What it has not been asked for
        yet it computes from the cost, which must not be changed in place till then. Where the cost,
        its points, weights, reg or penalties require grad, what it tells has derivatives by them,
        of the solution: see the page on gradients. Beside `mass` and penalties other than one KL
        number a side that is the value alone, once.

    Raises:
        ValueError: If an argument breaks a rule, or a point with weight has only forbidden pairs;
            or the checkpoint is of another problem, truncated or altered; on all ranks of a group
            if it is so on one, or they pass what differs.
        RuntimeError: If a rank of the group cannot be reached within its timeout.
        ConvergenceError: With on_fail="raise".
    """
    options = Options(method, tol, max_iter, n_iter, on_fail, progress, callback, checkpoint)
    leaves: Leaves | None = None
    if are_spread(group, cost, a, b):
        refused = {"mask": mask, "mass": mass}
        posed = posed_over_ranks(
            group, (cost, a, b, reg), asked(unbalanced), refused, init, options
        )
        problem, u, v, options = posed.problem, posed.u, posed.v, posed.options
    else:
        options = options.checked(reg)
        values, there = n_iter is None or _on_cpu(cost), None
        if mask is not None:
            cost, a, b, there = masked(cost, a, b, mask, values)
        leaves, (cost, a, b, reg, unbalanced, _) = waiting(cost, a, b, reg, asked(unbalanced))
        problem = make(cost, a, b, reg, unbalanced, mass=mass, values=values, there=there)
        u, v = (None, None) if init is None else warm(problem, init)
    # inside autocast the products of a sweep would be half precision, and so would their error
    with _exactly(problem.a.device.type):
        if options.n_iter is not None:
            result = _swept(problem, u, v, options)
            return result if leaves is None else _stepwise(result, leaves, options.n_iter, init)
        result = _solved(problem, u, v, options)
        # whoever stopped it knows
        good = (Status.CONVERGED, Status.STOPPED)
        told(result, all(s in good for s in result.statuses), on_fail)
        return result if leaves is None else differentiable(result, leaves)


def _swept(problem: Problem, u: Tensor | None, v: Tensor | None, options: Options) -> Transport:
    """Return what a number of sweeps make of a problem."""
    tol, n_iter = options.tolerance(problem), options.n_iter
    assert n_iter is not None
    count = functools.partial(_fixed, tol=tol, n_iter=n_iter)
    found, swept, name = by_size(problem, u, v, count, SWEEP)
    return _report(parted(problem, found), found, swept, name)


def _solved(problem: Problem, u: Tensor | None, v: Tensor | None, options: Options) -> Transport:
    """Return the solution of a problem, as far as it came."""
    tol, solver, callback = options.tolerance(problem), options.solver(problem), options.callback
    keeper = options.keeper(problem, u, v)
    # who is to be told of every sweep is not served by what makes many at once
    alone = callback is None and keeper is None
    told = callback or (None if alone else _go_on)
    show = options.progress
    with watch(show, told, tol, options.max_iter) as watcher, _watched(problem, show) as read:
        limits = Limits(tol, options.max_iter, watcher, keeper)
        act = functools.partial(_run, solver=solver, limits=limits, alone=alone)
        found, swept, name = _acted(read, u, v, act, limits)
    return _report(problem, found, swept, name)


def _acted(
    problem: Problem, u: Tensor | None, v: Tensor | None, act: Solve, limits: Limits
) -> Answer:
    """Act on a problem, on groups of a batch, or not at all where the answer has been kept."""
    keeper = limits.keeper
    if keeper is None:
        return act(problem, u, v) if limits.callback else by_size(problem, u, v, act, SOLVE)
    if known := keeper.answer(limits.tol, limits.max_iter):
        return known[0], choose(problem, limits.tol), known[1]
    found, swept, name = act(problem, u, v)
    keeper.finish(found, name, limits.tol, limits.max_iter)
    return found, swept, name


@contextmanager
def _watched(problem: Problem, show: bool) -> Iterator[Problem]:
    """Return a context with the problem, which shows how far a pass over its file is."""
    cost = problem.cost
    if not show or not isinstance(cost, Streamed) or cost.stored:
        yield problem
        return
    with passing(cost.shape[0]) as told:
        yield replace(problem, cost=cost.watched(told))


def _go_on(_: object) -> bool:
    """Be told of a sweep, so that those who watch and those who do not make the same."""
    return False


def _run(
    problem: Problem,
    u: Tensor | None,
    v: Tensor | None,
    *,
    solver: Sinkhorn | None,
    limits: Limits,
    alone: bool,
) -> Answer:
    """Pose a problem, solve it, and undo what was posed."""
    posed = pose(problem, u, v)
    found, sweep, name = run(posed, solver, limits, alone=alone)
    return posed.undo(found), sweep, name


def _fixed(
    problem: Problem, u: Tensor | None, v: Tensor | None, *, tol: float, n_iter: int
) -> Answer:
    """Sweep a problem a number of times."""
    sweep = choose(problem, tol)
    return fixed(sweep, n_iter, u, v), sweep, "plain"


def _stepwise(result: Transport, leaves: Leaves, n_iter: int, init: Any) -> Transport:
    if init is not None:
        raise ValueError(
            f"init must not be given with n_iter where {leaves.names} requires grad: leave n_iter "
            "out, and the solution is differentiated, whatever the start"
        )
    return stepwise(result, leaves, n_iter)


def _exactly(kind: str) -> AbstractContextManager[Any]:
    """Leave autocast on a kind of device; a small problem takes no longer than to leave none."""
    inside = torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if inside else nullcontext()


def _report(problem: Problem, s: Solution, sweep: Sweep | None, method: str) -> Transport:
    coupling = Entropic(passes(problem, sweep), s.u, s.v, s.scaled)
    result = Transport(problem, coupling, method, s.status, s.n_iter, s.error, s.notes)
    return result if problem.spread is None else settled(result)


def _on_cpu(cost: Any) -> bool:
    device = getattr(cost, "device", None)
    return device is None or torch.device(device).type == "cpu"
