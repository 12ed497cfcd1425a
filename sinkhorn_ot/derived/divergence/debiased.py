"""sinkhorn_divergence(): three transport problems, two of which have one potential each."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import (
    KL,
    METRICS,
    ArrayLike,
    Function,
    Mask,
    MetricName,
    Penalty,
    PointCloud,
    asked,
    broadcast,
    checks,
    masked,
)
from sinkhorn_ot.results import ON_FAIL, OnFail, Status, Transport, told, uncompiled
from sinkhorn_ot.solve import MAX_ITER, solve
from sinkhorn_ot.solvers import Sinkhorn

from .result import Divergence
from .symmetric import SYMMETRIC


# points up to which one problem is solved whole, whose calls cost more than its arithmetic: with
# exact marginals, and with penalties
_FEW = (100, 200)
# what two clouds cost: the name of a metric, or a function of both that returns (..., n, m)
Metric = MetricName | Function


@uncompiled
def sinkhorn_divergence(  # noqa: PLR0913
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    reg: float | ArrayLike | None = None,
    *,
    mask: Mask | None = None,
    metric: Metric = "sqeuclidean",
    unbalanced: float | Tensor | KL | None = None,
    tol: float | None = None,
    max_iter: int = MAX_ITER,
    init: "Divergence | None" = None,
    on_fail: OnFail = "warn",
) -> Divergence:
    """Compare two clouds of points by transport, without the bias of regularisation.

    Finds S = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2 + reg / 2 (m_a - m_b)^2, where OT is the
    optimum of what `solve` minimises and m are total weights, which differ only beside penalties.
    S is never negative, and zero for equal measures, where exp(-C / reg) is positive definite, as
    for every metric that has a name but "chebyshev" of more than two coordinates; for a function it
    is whatever the three numbers make.

    Source: J. Feydy, T. Sejourne, F.-X. Vialard, S. Amari, A. Trouve, G. Peyre, Interpolating
    between optimal transport and MMD using Sinkhorn divergences, AISTATS 2019, equation 3; with
    penalties T. Sejourne, J. Feydy, F.-X. Vialard, A. Trouve, G. Peyre, Sinkhorn divergences for
    unbalanced optimal transport, 2019, definition 6.

    Args:
        x: Source points, (..., n, d). Leading dimensions broadcast, and a cloud shared by a batch
            is moved onto itself once.
        y: Target points, (..., m, d).
        a: Source weights (..., n); None means 1/n each.
        b: Target weights (..., m), of the same total as a unless penalties allow another; None
            means 1/m each.
        reg: Regularisation in units of the cost, above zero; one number or one per problem.
        mask: Which points of padded clouds are there, (those of x, those of y), as in `solve`.
        metric: One that `PointCloud` names, of which "cosine" does not see lengths; or a function
            that takes two clouds, x and y, x and x, y and y, and returns what their points cost,
            (..., n, m), symmetrically.
        unbalanced: One KL penalty for both marginals instead of exact ones.
        tol: Relative L1 marginal error to reach in each problem; None means 1e-9 in float64, 1e-6
            otherwise. The divergence misses what is left of about its square.
        max_iter: Sweeps allowed in each problem.
        init: Warm start: an earlier result of clouds of these sizes.
        on_fail: What to do where tol is not reached: "warn", "raise" `ConvergenceError`, "ignore".

    Returns:
        A `Divergence`. Its value has derivatives by points, weights, reg and penalty where these
        require grad, by the envelope theorem and without storage; its potentials have them too.

    Raises:
        ValueError: If an argument breaks a rule.
        ConvergenceError: With on_fail="raise".
    """
    checks.one_of("on_fail", on_fail, ON_FAIL)
    for name, t in (("x", x), ("y", y), ("a", a), ("b", b), ("reg", reg)):
        if isinstance(t, Tensor):
            checks.own(name, t)
    if reg is None:
        raise ValueError("reg must be given: a number above zero, in units of the cost")
    # a type is called to make something else
    if not callable(metric) or isinstance(metric, type):
        checks.one_of("metric", metric, tuple(METRICS))
    _one_penalty(unbalanced)
    if not isinstance(init, Divergence | None):
        raise ValueError(f"init must be an earlier Divergence, got {type(init).__name__}")
    starts = (None, None, None) if init is None else (init.between, *init.within)
    how: dict[str, Any] = {"unbalanced": unbalanced, "tol": tol, "max_iter": max_iter}
    cost = _cost(metric, x, y)
    masks: tuple[Any, ...] = (None, None, None)
    if mask is not None:
        a, b = masked(cost, a, b, mask)[1:3]
        masks = mask, (mask[0], mask[0]), (mask[1], mask[1])
    hows = [{**how, "mask": side} for side in masks]
    between = solve(cost, a, b, reg, **hows[0], init=starts[0], on_fail="ignore")
    within = tuple(
        _within(metric, points, weights, reg, one, start)
        for points, weights, one, start in zip((x, y), (a, b), hows[1:], starts[1:], strict=True)
    )
    found = Divergence(between, within, (_kept(a), _kept(b)), _kept(reg), not callable(metric))
    told(found, found.status is Status.CONVERGED, on_fail)
    return found


def _kept(t: Any) -> Any:
    """Return a copy, which who changes an argument later does not change; a function if it was."""
    if isinstance(t, Tensor) and t.requires_grad and torch.is_grad_enabled():
        return t.clone()
    with torch.inference_mode(False):
        return t.detach().clone() if isinstance(t, Tensor) else copy.copy(t)


def _cost(metric: Metric, x: Any, y: Any) -> Any:
    return metric(x, y) if callable(metric) else PointCloud(x, y, metric)


def _within(
    metric: Metric, x: Any, a: Any, reg: Any, how: dict[str, Any], start: Transport | None
) -> Transport:
    """Return the transport of a measure onto itself, once for all who share it."""
    cost = _cost(metric, x, x)
    batch = torch.Size(np.shape(reg) if not isinstance(reg, Tensor) else reg.shape)
    if batch:
        # each regularisation has its own problem
        like = cost.x if isinstance(cost, PointCloud) else torch.as_tensor(cost)
        n = like.shape[-2]
        w = like.new_full((n,), 1 / n, dtype=torch.float64) if a is None else torch.as_tensor(a)
        a = w.expand(*broadcast("a", w.shape[:-1], "reg", batch), n)
    init: Any = start
    if start is None and metric == "dot":
        # where squared distances would begin: at half of what a point and itself cost
        assert isinstance(cost, PointCloud)
        init = None, -cost.x.detach().double().square().sum(-1) / 2
    how = how | {"method": _method(cost, batch, how["unbalanced"] is not None)}
    return solve(cost, a, a, reg, **how, init=init, on_fail="ignore")


def _method(cost: Any, batch: torch.Size, relaxed: bool) -> str | Sinkhorn:
    """Return what moves a measure onto itself in the least time."""
    # a kernel that nobody knows to be positive definite may take many symmetric steps
    if not isinstance(cost, PointCloud):
        return "auto"
    alone = cost.device.type == "cpu" and not (batch or cost.batch_shape)
    return "auto" if alone and cost.shape[0] <= _FEW[relaxed] else SYMMETRIC


def _one_penalty(unbalanced: Any) -> None:
    """Require the same penalty on both sides, of KL's kind, of which the divergence is known."""
    sides = unbalanced if isinstance(unbalanced, (tuple, list)) else [unbalanced]
    if any(isinstance(asked(side), Penalty) for side in sides):
        raise ValueError(f"unbalanced must be one KL number for both sides, got {unbalanced!r}")
    array = isinstance(unbalanced, (Tensor, np.ndarray))
    if not (isinstance(unbalanced, (tuple, list)) or array and unbalanced.ndim):
        return
    pair = [] if array and unbalanced.ndim > 1 else list(unbalanced)
    if len(pair) != 2 or pair[0] is not pair[1] and not pair[0] == pair[1]:
        raise ValueError(f"unbalanced must be one penalty for both sides, got {unbalanced!r:.60}")
