"""barycenter(): check, make a problem of every histogram, project, report."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import ArrayLike, Cost, GridCost, Problem, as_cost, checks, make
from sinkhorn_ot.results import (
    ON_FAIL,
    Entropic,
    OnFail,
    Status,
    Transport,
    told,
    uncompiled,
    waiting,
)
from sinkhorn_ot.solve import MAX_ITER
from sinkhorn_ot.sweeps import choose, passes

from .arguments import as_histograms, as_weights
from .projections import Found, Level, project
from .result import Asked, Barycenter
from .small import project_small


# by what share of the largest cost a symmetric one may be off by rounding
_ALIKE = 1e-5
# rows are exact, columns are what is looked for
_FREE = (None, 0.0)
# once it is found, both are
_EXACT = (math.inf, math.inf)
# tolerances in float32 and in float64: to take a blur off is slow towards its end
_TOLS = ((1e-6, 1e-9), (1e-5, 1e-6))


@uncompiled
def barycenter(  # noqa: PLR0913
    histograms: ArrayLike,
    cost: ArrayLike | Cost,
    reg: float | ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    debiased: bool = False,
    tol: float | None = None,
    max_iter: int = MAX_ITER,
    init: "Barycenter | None" = None,
    on_fail: OnFail = "warn",
) -> Barycenter:
    """Find the histogram that is nearest to several, by transport to each.

    Finds min over q of sum_k w_k (OT(a_k, q) - reg H(q)), where OT is the optimum of what `solve`
    minimises and H(q) = -sum q log q. That is sum_k w_k min over P_k of
    `<P_k, C> + reg sum P_k log(P_k / a_k)`: the entropy is that of plans, as in POT, which finds
    the same q, blurred by about reg; OT alone would shrink it as much. With `debiased` it finds min
    over q of sum_k w_k S(a_k, q), where S is the Sinkhorn divergence, and does neither.

    Source: J.-D. Benamou, G. Carlier, M. Cuturi, L. Nenna, G. Peyre, Iterative Bregman projections
    for regularized transportation problems, SIAM J. Sci. Comput. 2015; debiased H. Janati,
    M. Cuturi, A. Gramfort, Debiased Sinkhorn barycenters, ICML 2020.

    Args:
        histograms: Weights on the source points, (..., k, n), of one mass for each barycentre;
            zeros are exact. Leading dimensions are a batch of barycentres.
        cost: Tensor or array (n, m), `PointCloud` or `GridCost`, from the points of the histograms
            to those of the barycentre. One for all, without inf.
        reg: Regularisation in units of the cost, above zero; one number or one per barycentre.
        weights: Weights of the histograms, (..., k) or (k,), not negative, which are divided by
            their sum; None means 1/k each.
        debiased: Whether to take the bias of regularisation off; the cost must then be square and
            symmetric. Sharp: where the best q has zeros the last digits are slow to come.
        tol: Error to reach, in L1 relative to the mass: between column sums of any plan and q, and
            debiased between q and what it is moved onto; None means 1e-9 in float64, 1e-6 else,
            debiased 1e-6 and 1e-5.
        max_iter: Sweeps over all histograms allowed, annealing included.
        init: Warm start: an earlier result of these sizes.
        on_fail: What to do where tol is not reached: "warn", "raise" `ConvergenceError`, "ignore".

    Returns:
        A `Barycenter`. Its `value` has derivatives by histograms, weights, cost, points and reg
        where these require grad, its `histogram` by histograms and weights.

    Raises:
        ValueError: If an argument breaks a rule.
        ConvergenceError: With on_fail="raise".
    """
    checks.one_of("on_fail", on_fail, ON_FAIL)
    checks.flag("debiased", debiased)
    max_iter = checks.count("max_iter", max_iter)
    if reg is None:
        raise ValueError("reg must be given: a number above zero, in units of the cost")
    for name, t in (("histograms", histograms), ("weights", weights), ("reg", reg)):
        if isinstance(t, Tensor):
            checks.own(name, t)
    cost = _shared(as_cost(cost), debiased)
    a = as_histograms(histograms, cost)
    w = as_weights(weights, a)
    if isinstance(reg, Tensor) and reg.ndim:
        reg = reg[..., None]
    leaves, (held, fixed, _, at, *_) = waiting(cost, a, None, reg)
    p = make(held, fixed, None, at, _FREE)
    if p.far < math.inf:
        raise ValueError(
            f"reg must be large enough to resolve all pairs, got {p.least_reg:.3g}, at which those "
            f"that cost more than {p.far:.3g} count as forbidden"
        )
    if p.bounds.forbids:
        raise ValueError("cost must allow all pairs for a barycentre, got inf")
    if tol is None:
        tol = _TOLS[debiased][p.dtype == torch.float64]
    checks.positive("tol", tol)
    share = w.detach().to(p.work).reshape(-1, w.shape[-1])
    found = None if debiased or init is not None else project_small(p, share, tol, max_iter)
    if found is None:
        level = _level(p, share, debiased, tol)
        found = project(level, _start(init, level), tol, max_iter)
    result = Barycenter(
        transport=_transport(p, found),
        asked=Asked(cost, a, w, reg, debiased, leaves),
        statuses=found.status,
        sweeps=found.n_iter,
        measured=found.error,
    )
    told(result, result.status is Status.CONVERGED, on_fail)
    return result


def _shared(cost: Cost, debiased: bool) -> Cost:
    """Require one cost for all."""
    if cost.batch_shape:
        raise ValueError(f"cost must have shape (n, m), one for all, got {tuple(cost.batch_shape)}")
    if debiased and cost.shape[0] != cost.shape[1]:
        raise ValueError(
            f"cost must be that of a support and itself to be debiased, (n, n), got {cost.shape}"
        )
    if debiased and not _symmetric(cost):
        raise ValueError(
            "cost must be symmetric to be debiased, as that of a support and itself is, "
            f"got {cost!r}"
        )
    return cost


def _symmetric(cost: Cost) -> bool:
    """Say whether points cost the same both ways, but for rounding."""
    parts = cost.along if isinstance(cost, GridCost) else [cost.rows(0, cost.shape[0])]
    constant = (C.detach() for C in parts)
    return all(
        C.shape[-2] == C.shape[-1]
        and torch.allclose(C, C.mT, rtol=_ALIKE, atol=_ALIKE * float(C.abs().amax()))
        for C in constant
    )


def _level(p: Problem, w: Tensor, debiased: bool, tol: float) -> Level:
    """Return the barycentres of all histograms of a batch."""
    own = None
    if debiased:
        one = p.select(torch.arange(0, len(p.reg), w.shape[1], device=w.device))
        even = torch.full_like(one.a, 1 / one.a.shape[1])
        own = choose(replace(one, a=even), tol)
    return Level(choose(p, tol), own, w)


def _start(init: Any, level: Level) -> Tensor | None:
    """Return the scaled column potentials of an earlier result, (G, k, m)."""
    if init is None:
        return None
    if not isinstance(init, Barycenter):
        raise ValueError(f"init must be an earlier Barycenter, got {type(init).__name__}")
    p, held = level.problem, init.transport.coupling
    assert isinstance(held, Entropic)
    if held.v.shape != p.b.shape:
        raise ValueError(
            f"init must have {tuple(p.b.shape)} column potentials, got {tuple(held.v.shape)}"
        )
    psi = held.v * (held.problem.reg / p.reg)[:, None]
    psi = psi.view(*level.w.shape, -1)
    if level.own is None:
        # what a consensus keeps must be nothing from the start
        psi = psi - level.consensus(psi)[:, None]
    return psi


def _transport(free: Problem, found: Found) -> Transport:
    """Return the transports of all histograms onto their barycentres."""
    k = found.psi.shape[1]
    mass = free.a[::k].sum(-1, keepdim=True)
    q = found.log_q.exp()
    q = q * (mass / q.sum(-1, keepdim=True))
    p = replace(free, b=q.repeat_interleave(k, 0), relax=_EXACT)
    v = torch.where(p.b > 0, found.psi.flatten(0, 1), -torch.inf)
    coupling = Entropic(passes(p, None), found.u, v)
    status = [s for s in found.status for _ in range(k)]
    sweeps = found.n_iter.repeat_interleave(k)
    return Transport(p, coupling, "projections", status, sweeps, found.errors.flatten())
