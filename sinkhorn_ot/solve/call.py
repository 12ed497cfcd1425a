"""solve(): check the arguments, pose the problem, choose, run, put the answer back, report."""

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.gradients import differentiable, stepwise
from sinkhorn_ot.problem import Problem, asked, checks, make, masked, within
from sinkhorn_ot.results import (
    Entropic,
    Leaves,
    Solution,
    Status,
    Transport,
    told,
    transformable,
    uncompiled,
    waiting,
)
from sinkhorn_ot.solvers import (
    METHODS,
    Callback,
    Limits,
    Sinkhorn,
    fixed,
    parted,
    pose,
    run,
    watch,
)
from sinkhorn_ot.sweeps import Sweep, choose, passes

from .graph import graphed
from .ragged import SOLVE, SWEEP, by_size


ON_FAIL = ("warn", "raise", "ignore")
MAX_ITER = 10_000
# what starts are called
_SIDES = ("source", "target")


@graphed
@uncompiled
@transformable
def solve(  # noqa: PLR0913
    cost: Any,
    a: Any = None,
    b: Any = None,
    reg: Any = None,
    *,
    mask: Any = None,
    unbalanced: Any = None,
    mass: Any = None,
    method: str | Sinkhorn = "auto",
    tol: float | None = None,
    max_iter: int = MAX_ITER,
    n_iter: int | None = None,
    init: Any = None,
    on_fail: str = "warn",
    progress: bool = False,
    callback: Callback | None = None,
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

    Returns:
        Plan, potentials, values, bounds, and how far to trust them. What it has not been asked for
        yet it computes from the cost, which must not be changed in place till then. Where the cost,
        its points, weights, reg or penalties require grad, what it tells has derivatives by them,
        of the solution: see the page on gradients. Beside `mass` and penalties other than one KL
        number a side that is the value alone, once.

    Raises:
        ValueError: If an argument breaks a rule, or a point with weight has only forbidden pairs.
        ConvergenceError: With on_fail="raise".
    """
    checks.one_of("on_fail", on_fail, ON_FAIL)
    max_iter = checks.count("max_iter", max_iter)
    given = {
        "method": not isinstance(method, str) or method not in ("auto", "sinkhorn"),
        "tol": tol is not None,
        "max_iter": max_iter != MAX_ITER,
        "on_fail": on_fail == "raise",
        "progress": checks.flag("progress", progress),
        "callback": callback is not None,
    }
    _checked(reg, callback, n_iter, given)
    values, there = n_iter is None or _on_cpu(cost), None
    if mask is not None:
        cost, a, b, there = masked(cost, a, b, mask, values)
    leaves, (cost, a, b, reg, unbalanced, _) = waiting(cost, a, b, reg, asked(unbalanced))
    problem = make(cost, a, b, reg, unbalanced, mass=mass, values=values, there=there)
    u, v = (None, None) if init is None else _warm(problem, init)
    tol = _tolerance(tol, problem)
    # inside autocast the products of a sweep would be half precision, and so would their error
    with _exactly(problem.a.device.type):
        if n_iter is not None:
            count = functools.partial(_fixed, tol=tol, n_iter=checks.count("n_iter", n_iter))
            found, swept, name = by_size(problem, u, v, count, SWEEP)
            result = _report(parted(problem, found), found, swept, name)
            return result if leaves is None else _stepwise(result, leaves, n_iter, init)
        solver = _solver(method, problem)
        with watch(progress, callback, tol, max_iter) as watcher:
            limits = Limits(tol, max_iter, watcher)
            # who is to be told of every sweep is not served by what makes many at once
            alone = callback is None
            act = functools.partial(_run, solver=solver, limits=limits, alone=alone)
            found, swept, name = (
                act(problem, u, v) if watcher else by_size(problem, u, v, act, SOLVE)
            )
        result = _report(problem, found, swept, name)
        # whoever stopped it knows
        good = (Status.CONVERGED, Status.STOPPED)
        told(result, all(s in good for s in result.statuses), on_fail, depth=6)
        return result if leaves is None else differentiable(result, leaves)


def _run(
    problem: Problem,
    u: Tensor | None,
    v: Tensor | None,
    *,
    solver: Sinkhorn | None,
    limits: Limits,
    alone: bool,
) -> tuple[Solution, Sweep | None, str]:
    """Pose a problem, solve it, and undo what was posed."""
    posed = pose(problem, u, v)
    found, sweep, name = run(posed, solver, limits, alone=alone)
    return posed.undo(found), sweep, name


def _fixed(
    problem: Problem, u: Tensor | None, v: Tensor | None, *, tol: float, n_iter: int
) -> tuple[Solution, Sweep | None, str]:
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


def _checked(reg: Any, callback: Any, n_iter: int | None, given: dict[str, bool]) -> None:
    """Require options that make sense, alone and together."""
    if reg is None:
        raise ValueError("reg must be given: a number above zero, or use solve_exact for none")
    checks.callback("callback", callback)
    if n_iter is not None:
        checks.unused("n_iter", [name for name, is_given in given.items() if is_given])


def _exactly(kind: str) -> AbstractContextManager[Any]:
    """Leave autocast on a kind of device; a small problem takes no longer than to leave none."""
    inside = torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if inside else nullcontext()


def _solver(method: str | Sinkhorn, problem: Problem) -> Sinkhorn | None:
    """Return the solver that is asked for; None leaves the choice."""
    if isinstance(method, Sinkhorn):
        solver: Sinkhorn | None = method
    elif callable(getattr(method, "start", None)):
        given = f"{method.__name__}()" if isinstance(method, type) else repr(method)
        raise ValueError(f"method must be a solver: pass Sinkhorn({given})")
    elif isinstance(method, type):
        raise ValueError(f"method must be a solver, not its class: pass {method.__name__}()")
    else:
        solver = METHODS[checks.one_of("method", method, tuple(METHODS))]
    if solver is not None and solver.needs_exact and not problem.exact:
        raise ValueError(f"method {solver.name!r} needs exact marginals, got {problem.asked}")
    return solver


def _report(problem: Problem, s: Solution, sweep: Sweep | None, method: str) -> Transport:
    coupling = Entropic(passes(problem, sweep), s.u, s.v, s.scaled)
    return Transport(problem, coupling, method, s.status, s.n_iter, s.error, s.notes)


def _on_cpu(cost: Any) -> bool:
    device = getattr(cost, "device", None)
    return device is None or torch.device(device).type == "cpu"


def _tolerance(tol: float | None, problem: Problem) -> float:
    if tol is None:
        return 1e-9 if problem.dtype == torch.float64 else 1e-6
    return checks.positive("tol", tol)


def _warm(problem: Problem, init: Any) -> tuple[Tensor | None, Tensor | None]:
    """Return the scaled potentials of an earlier result or of a pair (f, g)."""
    if isinstance(init, Transport):
        init = init.f, init.g
    if not (isinstance(init, (tuple, list)) and len(init) == 2) or all(p is None for p in init):
        raise ValueError(f"init must be a result or a pair (f, g), got {type(init).__name__}")
    f, g = init
    return _scaled(problem, f, 0), _scaled(problem, g, 1)


def _scaled(problem: Problem, potential: Any, side: int) -> Tensor | None:
    """Return (potential - shift) / reg + log weight of a side, (B, size)."""
    if potential is None:
        return None
    weight, shift = (problem.a, problem.b)[side], problem.shifts[side]
    size = weight.shape[-1]
    if isinstance(potential, Tensor):
        # where a solve starts does not change where it ends
        potential = checks.own("init", potential).detach()
    t = checks.at_least_dims("init", checks.tensor("init", potential), 1, f"(..., {size})")
    if t.shape[-1] != size:
        raise ValueError(f"init must hold {size} {_SIDES[side]} potentials, got {tuple(t.shape)}")
    checks.same_device("init", t, problem.b.device, "cost")
    within("init", t.shape[:-1], problem.batch_shape)
    if problem.there is not None:
        t = torch.where(problem.there[side].view(*problem.batch_shape, size), t, 0.0)
    t = checks.finite("init", t).to(problem.work).expand(*problem.batch_shape, size)
    return (t.reshape(-1, size) - shift) / problem.reg[:, None] + weight.log()
