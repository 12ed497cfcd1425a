"""sinkhorn_distance(): the least cost of a plan that is not too far from independence."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import ArrayLike, Cost, Problem, broadcast, checks, make
from sinkhorn_ot.results import ON_FAIL, OnFail, told, transformable, waiting

from .apart import found
from .derivatives import differentiable
from .result import SinkhornDistance
from .walk import Goal


@transformable
def sinkhorn_distance(
    cost: ArrayLike | Cost,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    alpha: float | ArrayLike,
    tol: float = 1e-9,
    max_iter: int = 10_000,
    on_fail: OnFail = "warn",
) -> SinkhornDistance:
    """Find the least cost of a plan whose mutual information is at most alpha.

    Finds min `<P, C>` over P >= 0 with P 1 = a, P^T 1 = b and KL(P | a b^T) <= alpha, for masses M
    other than one with KL(P / M | a b^T / M^2). Work is in float64, whatever the input.

    Source: M. Cuturi, Sinkhorn distances, NeurIPS 2013, section 3, d_{M, alpha}; not by bisection
    but by Newton's method in reg and the potentials at once.

    Args:
        cost: Tensor or array (..., n, m), or `PointCloud(x, y)`. inf forbids a pair.
        a: Source weights (..., n); None means 1/n each. Leading dimensions broadcast, and a cost
            shared by a whole batch is not copied.
        b: Target weights (..., m), of the same total as a; None means 1/m each.
        alpha: Divergence allowed, in nats: one number, or one per problem, whose dimensions
            broadcast with the others. 0 allows only independence; inf is exact transport, and so is
            whatever is at least the smaller entropy of a and b.
        tol: How far the bounds on the distance may be apart, relative to it, and the relative L1
            marginal error of the plan.
        max_iter: Sweeps allowed, at all reg together.
        on_fail: What to do where tol is not reached: "warn", "raise" `ConvergenceError`, "ignore".

    Returns:
        The distance, the plan, its reg, and bounds. Where the cost, its points, weights or alpha
        require grad, `value` has derivatives by them.

    Raises:
        ValueError: If an argument breaks a rule, or no plan of allowed pairs is within alpha.
        ConvergenceError: With on_fail="raise".
    """
    checks.one_of("on_fail", on_fail, ON_FAIL)
    goal = Goal(checks.positive("tol", tol), checks.count("max_iter", max_iter))
    leaves, (cost, a, b, _, _, alpha) = waiting(cost, a, b, alpha=alpha)
    given, alphas = _posed(cost, a, b, alpha)
    p = _normalised(given)
    with torch.autocast(p.a.device.type, enabled=False):
        ends = found(p, alphas.tolist(), goal)
    unit, theta = p.reg.new_tensor([(x.unit, x.theta) for x in ends]).T
    answer = SinkhornDistance(_weighted(p.at(unit / theta), given), alphas, ends)
    told(answer, bool(answer.converged.all()), on_fail)
    return answer if leaves is None else differentiable(answer, leaves)


def _posed(cost: Any, a: Any, b: Any, alpha: Any) -> tuple[Problem, Tensor]:
    """Return the flat problem, and alpha for each of its problems, (B,)."""
    p = make(cost, a, b)
    t = _divergence(alpha)
    batch = broadcast("alpha", t.shape, "the problem", p.batch_shape)
    if batch != p.batch_shape:
        # alpha has dimensions of its own
        weights = (w.reshape(*p.batch_shape, -1).expand(*batch, -1) for w in (p.a, p.b))
        p = make(cost, *weights)
    return p, t.to(p.a.device).expand(batch).reshape(-1)


def _divergence(alpha: Any) -> Tensor:
    """Return alpha as a float64 tensor, once it is known to be a bound."""
    if isinstance(alpha, Tensor):
        alpha = checks.present("alpha", checks.constant("alpha", alpha))
    if not isinstance(alpha, (list, tuple)) and getattr(alpha, "ndim", 0) == 0:
        t = torch.tensor(checks.number("alpha", alpha), dtype=torch.float64)
    else:
        t = checks.present("alpha", checks.tensor("alpha", alpha)).double()
        checks.at_least_dims("alpha", t, 0, "(...)")
    if not bool((t >= 0).all()):
        if t.ndim == 0:
            raise ValueError(f"alpha must be at least zero, got {float(t):.4g}")
        checks.refuse("alpha", "be at least zero", t, ~(t >= 0))
    return t


def _normalised(p: Problem) -> Problem:
    """Return the problem in float64, with masses of one."""
    a, b = (w.double() / w.double().sum(-1, keepdim=True) for w in (p.a, p.b))
    return replace(p, a=a, b=b, reg=p.reg.double(), dtype=torch.float64)


def _weighted(p: Problem, given: Problem) -> Problem:
    """Return the problem with the caller's masses and dtype."""
    mass = given.a.double().sum(-1, keepdim=True)
    return replace(p, a=p.a * mass, b=p.b * mass, dtype=given.dtype)
