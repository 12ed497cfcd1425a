"""How good a plan is, in float64 and NumPy alone: nothing here is shared with any solver."""

from typing import Any

import numpy as np

from bench.cpu.cases import Case
from bench.cpu.measure import marginal_error


Array = np.ndarray[Any, np.dtype[np.float64]]


def judged(case: Case, reg: float, plan: Any, g: Any) -> tuple[float, float | None]:
    """Return the L1 error of both marginals, and the duality gap where there are potentials."""
    P, a, b, C = (np.asarray(x, np.float64) for x in (plan, case.a, case.b, case.C))
    error = marginal_error(P, a, b)
    if g is None or not np.isfinite(error):
        return error, None
    with np.errstate(all="ignore"):
        return error, float(np.max(primal(P, a, b, C, reg) - dual(np.asarray(g), a, b, C, reg)))


def primal(P: Array, a: Array, b: Array, C: Array, reg: float) -> Array:
    """Return <P, C> + reg KL(P | a b^T) of the plan made feasible, (...).

    Source: J. Altschuler, J. Weed, P. Rigollet, Near-linear time approximation algorithms for
    optimal transport via Sinkhorn iteration, NeurIPS 2017, algorithm 2.
    """
    P = P * np.minimum(1, _over(a, P.sum(-1)))[..., :, None]
    P = P * np.minimum(1, _over(b, P.sum(-2)))[..., None, :]
    rows, columns = a - P.sum(-1), b - P.sum(-2)
    missing = np.abs(rows).sum(-1)[..., None, None]
    P += rows[..., :, None] * _over(columns[..., None, :], missing)
    ratio = np.where(P > 0, _over(P, a[..., :, None] * b[..., None, :]), 1.0)
    kl = (P * np.log(ratio)).sum((-1, -2)) - P.sum((-1, -2)) + a.sum(-1) * b.sum(-1)
    value: Array = (P * C).sum((-1, -2)) + reg * kl
    return value


def dual(g: Array, a: Array, b: Array, C: Array, reg: float) -> Array:
    """Return the dual value at g and the row potentials that are best with it, (...)."""
    g = np.where(b > 0, g, 0.0)
    # what has no weight may lie so far above the rest that its exponential is inf, and 0 * inf nan
    exponent = np.where(b[..., None, :] > 0, (g[..., None, :] - C) / reg, -np.inf)
    top = exponent.max(-1)
    total = (np.exp(exponent - top[..., None]) * b[..., None, :]).sum(-1)
    f = -reg * (top + np.log(total))
    value: Array = (f * a).sum(-1) + (g * b).sum(-1)
    return value


def _over(top: Array, bottom: Array) -> Array:
    """Return top / bottom, and 0 where that is 0 / 0."""
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom > 0)
