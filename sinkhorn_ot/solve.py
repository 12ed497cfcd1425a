"""solve(): turn arguments into a problem, choose, run, report."""

import math
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, Streamed, checks, make, within
from sinkhorn_ot.results import ConvergenceWarning, Entropic, Solution, Status, Transport
from sinkhorn_ot.solvers import (
    METHODS,
    Callback,
    Progress,
    Sinkhorn,
    automatic,
    fixed,
    solve_small,
    support,
    watch,
)
from sinkhorn_ot.sweeps import choose, passes


ON_FAIL = ("warn", "raise", "ignore")
MAX_ITER = 10_000


def solve(  # noqa: PLR0913
    cost: Any,
    a: Any = None,
    b: Any = None,
    reg: Any = None,
    *,
    unbalanced: Any = None,
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

    Finds min over P >= 0 with P 1 = a, P^T 1 = b of <P, C> + reg * KL(P | a b^T).

    Args:
        cost: Tensor or array (..., n, m), or `PointCloud(x, y)`. inf forbids a pair.
        a: Source weights (..., n); None means 1/n each. Leading dimensions broadcast, and a cost
            shared by a whole batch is not copied.
        b: Target weights (..., m), of the same total as a; None means 1/m each.
        reg: Regularisation in units of the cost, above zero; one number or one per problem.
        unbalanced: KL penalty on the marginals, one number or (on a, on b), instead of exact ones:
            None is exact, 0 leaves a marginal free.
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
        A `Transport`: plan, potentials, values, bounds, and how far to trust them. What it has not
        been asked for yet it computes from the cost, which must not be changed in place till then.

    Raises:
        ValueError: If an argument breaks a rule, or a point with weight has only forbidden pairs.
        ConvergenceError: With on_fail="raise".
    """
    checks.one_of("on_fail", on_fail, ON_FAIL)
    if reg is None:
        raise ValueError("reg must be given: a number above zero, or use solve_exact for none")
    if callback is not None and not callable(callback):
        raise ValueError(f"callback must be a function of a Progress, got {callback!r}")
    given = {
        "method": method not in ("auto", "sinkhorn"),
        "tol": tol is not None,
        "max_iter": max_iter != MAX_ITER,
        "on_fail": on_fail == "raise",
        "progress": progress,
        "callback": callback is not None,
    }
    if n_iter is not None:
        checks.unused("n_iter", [name for name, is_given in given.items() if is_given])
    problem = make(cost, a, b, reg, unbalanced, values=n_iter is None or _on_cpu(cost))
    start = (None, None) if init is None else _warm(problem, init)
    tol = _tolerance(tol, problem)
    # inside autocast the products of a sweep would be half precision, and so would their error
    with torch.autocast(problem.a.device.type, enabled=False):
        if n_iter is not None:
            n_iter = checks.count("n_iter", n_iter)
            found = fixed(choose(problem, tol), n_iter, *start)
            return _report(found, problem, "plain")
        max_iter = checks.count("max_iter", max_iter)
        with watch(progress, callback, tol, max_iter) as told:
            limits = {"tol": tol, "max_iter": max_iter, "callback": told}
            # who is to be told of every sweep is not served by what makes many at once
            found, name = _solved(problem, method, start, limits, callback is None)
        result = _honest(_report(found, problem, name), found, tol)
    return _told(result, on_fail)


def _solved(
    problem: Problem,
    method: str | Sinkhorn,
    start: tuple[Tensor | None, Tensor | None],
    limits: dict[str, Any],
    alone: bool,
) -> tuple[Solution, str]:
    """Run the method that is asked for, or the best; return its name too."""
    if (fewer := support(problem)) is not None:
        found, name = _solved(fewer.problem, method, fewer.start(*start), limits, alone)
        return fewer.whole(found), name
    flip = _flipped(problem, *start)
    posed, psi = (problem.transposed(), start[0]) if flip else (problem, start[1])
    psi = _levelled(posed, psi)
    solver = _solver(method, posed)
    few = alone and (posed.shape[0] == 1 or solver is METHODS["newton"])
    answer = _at_once(posed, psi, limits) if method == "auto" and few else None
    if answer is None:
        found, name = solver(choose(posed, limits["tol"]), psi=psi, **limits), solver.name
    else:
        found, name = answer
    if answer and (left := [k for k, s in enumerate(found.status) if s is not Status.CONVERGED]):
        at = torch.tensor(left)
        rest, psi = posed.select(at), None if psi is None else psi[at]
        found = found.put(at, solver(choose(rest, limits["tol"]), psi=psi, **limits))
    return replace(found, u=found.v, v=found.u) if flip else found, name


def _at_once(
    problem: Problem, psi: Tensor | None, limits: dict[str, Any]
) -> tuple[Solution, str] | None:
    """Solve problems so small that they are solved whole; None if none of them is."""
    most = {"tol": limits["tol"], "max_iter": limits["max_iter"]}
    answer = solve_small(problem, psi=psi, **most)
    if answer is None and psi is not None:
        # a start may be worse than none
        answer = solve_small(problem, psi=None, **most)
    if answer is not None and limits["callback"]:
        found = answer[0]
        assert found.error is not None
        limits["callback"](Progress(int(found.n_iter.max()), float(found.error.max()), 0, 1.0))
    return answer


def _levelled(problem: Problem, psi: Tensor | None) -> Tensor | None:
    """Return column potentials less their mean.

    With exact marginals it means nothing, but may be so large that it takes digits from the rest.
    """
    if psi is None or not problem.exact:
        return psi
    return psi - (problem.b * psi).sum(-1, keepdim=True) / problem.b.sum(-1, keepdim=True)


def _flipped(problem: Problem, phi: Tensor | None, psi: Tensor | None) -> bool:
    """Say whether rows and columns had better change places.

    What is iterated on is the columns' potential: let it be the one that is known, else the free
    one, else the short one.
    """
    if isinstance(problem.cost, Streamed):
        return False
    if (phi is None) != (psi is None):
        return psi is None
    if 0 in problem.relax:
        return problem.relax[1] > 0
    return 4 * problem.shape[1] <= problem.shape[2]


def _solver(method: str | Sinkhorn, problem: Problem) -> Sinkhorn:
    if isinstance(method, Sinkhorn):
        solver = method
    elif callable(getattr(method, "start", None)):
        raise ValueError(f"method must be a solver: pass Sinkhorn({method!r})")
    else:
        solver = METHODS[checks.one_of("method", method, tuple(METHODS))] or automatic(problem)
    if solver.needs_exact and not problem.exact:
        raise ValueError(
            f"method {solver.name!r} needs exact marginals, got unbalanced={problem.relax}"
        )
    return solver


def _told(result: Transport, on_fail: str) -> Transport:
    """Return the result, once it is known that it is good or whoever asked has been told."""
    if on_fail == "raise":
        return result.check()
    # whoever stopped it knows
    asked = (Status.CONVERGED, Status.STOPPED)
    if on_fail == "warn" and any(s not in asked for s in result.statuses):
        warnings.warn(result.message, ConvergenceWarning, stacklevel=3)
    return result


def _report(s: Solution, problem: Problem, method: str) -> Transport:
    coupling = Entropic(passes(problem), s.u, s.v)
    return Transport(problem, coupling, method, s.status, s.n_iter, s.error)


def _honest(result: Transport, found: Solution, tol: float) -> Transport:
    """Return the result with the error of its plan, where that may be more than the sweeps saw.

    That is where rounding is coarse, and where potentials have drifted without an end in sight.
    """
    p = result.problem
    if p.work != torch.float64:
        return result
    # both potentials of a pair are rounded, and a row has many pairs
    drifted = 10 * torch.finfo(p.work).eps * max(_largest(found.u), _largest(found.v))
    if max(p.resolution, drifted) <= tol and result.status is Status.CONVERGED:
        return result
    error = replace(result, measured=None).marginal_error.reshape(-1).double()
    statuses = [
        Status.STALLED if status is Status.CONVERGED and off > tol else status
        for status, off in zip(result.statuses, error.tolist(), strict=True)
    ]
    return replace(result, measured=error, statuses=statuses)


def _largest(t: Tensor) -> float:
    """Return the largest size of a potential; points without weight have none."""
    low, high = (float(x) for x in torch.aminmax(t))
    if low == -math.inf:
        low = float(t.masked_fill(t == -math.inf, 0.0).amin())
    return max(-low, high)


def _on_cpu(cost: Any) -> bool:
    device = getattr(cost, "device", None)
    return device is None or torch.device(device).type == "cpu"


def _tolerance(tol: float | None, problem: Problem) -> float:
    if tol is None:
        return 1e-9 if problem.dtype == torch.float64 else 1e-6
    return checks.positive("tol", tol)


def _warm(problem: Problem, init: Any) -> tuple[Tensor | None, Tensor | None]:
    """Return f / reg and g / reg of an earlier result or of a pair (f, g)."""
    if isinstance(init, Transport):
        init = init.f, init.g
    if not (isinstance(init, tuple) and len(init) == 2) or all(p is None for p in init):
        raise ValueError(f"init must be a result or a pair (f, g), got {type(init).__name__}")
    _, n, m = problem.shape
    phi, psi = _scaled(problem, init[0], n, "source"), _scaled(problem, init[1], m, "target")
    return None if phi is None else phi - problem.shift / problem.reg[:, None], psi


def _scaled(problem: Problem, potential: Any, size: int, side: str) -> Tensor | None:
    if potential is None:
        return None
    t = checks.at_least_dims("init", checks.tensor("init", potential), 1, f"(..., {size})")
    if t.shape[-1] != size:
        raise ValueError(f"init must hold {size} {side} potentials, got {tuple(t.shape)}")
    checks.same_device("init", t, problem.b.device, "cost")
    within("init", t.shape[:-1], problem.batch_shape)
    t = checks.finite("init", t).to(problem.work).expand(*problem.batch_shape, size)
    return t.reshape(-1, size) / problem.reg[:, None]
