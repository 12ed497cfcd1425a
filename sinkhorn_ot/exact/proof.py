"""What plans and potentials prove, for a whole batch at once: two passes over the costs.

The first pass takes from every cost what no plan can avoid, the second lowers an engine's
potentials until they are feasible to the last digit. Both read blocks that fit a cache.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sinkhorn_ot.problem import shown


Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

# entries looked at together
_TILE = 1 << 17
# what rounding may leave of <P, C - f - g>, relative to its terms, and of a marginal
_SLACK = 1e-12
MARGINAL = 1e-13
_DIGIT = 16 * float(np.finfo(np.float64).eps)


@shown
@dataclass(frozen=True, eq=False)
class Reduced:
    """Costs C = f + g + unit * R, with R of at least zero and at most one where allowed.

    Attributes:
        R: What is left of the costs, (B, n, m).
        f: What every entry of a row has in common, (B, n).
        g: What every entry of a column then has, (B, m).
        unit: (B,).
    """

    R: Array
    f: Array
    g: Array
    unit: Array


@shown
@dataclass(frozen=True, eq=False)
class Measured:
    """What is between plans and feasible potentials, (B,) each.

    Attributes:
        slack: <P, C - f - g>, never negative: how far a plan is from optimal for its marginals.
        scale: Size of the terms of the slack: what rounding is relative to.
        gap: <P, C> - <f, a> - <g, b>: the slack, and what the marginals miss.
        marginal_error: L1 distance of the marginals, relative to their mass.
    """

    slack: Array
    scale: Array
    gap: Array
    marginal_error: Array


def proved(x: Measured) -> Mask:
    """Return which plans are proved optimal, (B,): what is left is rounding."""
    rounding = _SLACK * x.scale
    # beside huge potentials the last digit of a marginal may outweigh the whole value
    allowed = np.where(np.abs(x.gap) <= rounding, MARGINAL, _DIGIT)
    good: Mask = (x.slack <= rounding) & (x.marginal_error <= allowed)
    return good


def reduced(C: Array) -> Reduced:
    """Take off all costs what no plan can avoid: rows first, then columns.

    Args:
        C: Costs, (B, n, m); inf where forbidden.
    """
    R = np.empty_like(C, order="C")
    f, g = np.empty(C.shape[:2]), np.full((len(C), C.shape[2]), np.inf)
    unit = np.zeros(len(C))
    for k, i in _blocks(C):
        block = C[k, i]
        low = _numbers(block.min(-1))
        rest = np.subtract(block, low[:, :, None], out=R[k, i])
        f[k, i] = low
        np.minimum(g[k], rest.min(1), out=g[k])
        high = rest.max((1, 2))
        if not np.isfinite(high).all():
            high = np.where(rest < np.inf, rest, 0.0).max((1, 2))
        np.maximum(unit[k], high, out=unit[k])
    g = _numbers(g)
    unit[unit == 0] = 1.0
    for k, i in _blocks(C):
        block = R[k, i]
        block -= g[k, None]
        block /= unit[k, None, None]
    return Reduced(R, f, g, unit)


def lowered(C: Array, t: Array) -> Array:
    """Return min_j C_ij - t_j, (B, n), rounded down: no sum with t exceeds C by a digit.

    A row that no pair allows gets zero.

    Args:
        C: Costs, (B, n, m), or (1, n, m) that all share.
        t: Potentials of the other side, (B, m); -inf binds nobody.
    """
    least = np.empty((len(t), C.shape[1]))
    for k, i in _blocks(np.broadcast_to(C, (len(t), *C.shape[1:]))):
        block, other = C[k if len(C) > 1 else slice(None), i], t[k, None]
        rest = block - other
        low = rest.min(-1)
        # what is one digit larger is larger also before it was rounded: only the least may lie
        b, r, j = used((rest == low[:, :, None]) & (low < np.inf)[:, :, None])
        c = np.broadcast_to(block, rest.shape)[b, r, j]
        lies = rounding(c, t[k][b, j], rest[b, r, j]) < 0
        down = b[lies], r[lies]
        low[down] = np.nextafter(low[down], -np.inf)
        least[k, i] = low
    return _numbers(least)


def settled(C: Array, g: Array, b: Array) -> tuple[Array, Array]:
    """Return feasible potentials near an engine's: f_i + g_j <= C_ij to the last digit.

    Args:
        C: Costs, (B, n, m), or (1, n, m) that all share.
        g: Target potentials, (B, m).
        b: Target weights, (B, m): a point without weight binds nobody and is set last.
    """
    bare = b <= 0
    if not bare.any():
        return lowered(C, g), g
    f = lowered(C, np.where(bare, -np.inf, g))
    some = bare.any(1)
    columns = bare[some].any(0)
    few = C[some] if len(C) > 1 else C
    last = lowered(few[:, :, columns].transpose(0, 2, 1), f[some])
    g = g.copy()
    rows = np.flatnonzero(some)[:, None], np.flatnonzero(columns)
    g[rows] = np.where(bare[rows], last, g[rows])
    return f, g


def measured(C: Array, P: Array, f: Array, g: Array, a: Array, b: Array) -> Measured:
    """Measure what is between plans and potentials.

    Args:
        C: Costs, (B, n, m), or (1, n, m) that all share.
        P: Plans, (B, n, m).
        f: Source potentials, (B, n).
        g: Target potentials, (B, m).
        a: Source weights, (B, n).
        b: Target weights, (B, m).
    """
    B, n, m = P.shape
    k, i, j = used(P)
    mass, c = P[k, i, j], C[k if len(C) > 1 else 0, i, j]
    rows = np.bincount(k * n + i, mass, B * n).reshape(B, n)
    columns = np.bincount(k * m + j, mass, B * m).reshape(B, m)
    off = np.abs(rows - a).sum(1) + np.abs(columns - b).sum(1)
    slack, upper, terms = (
        np.bincount(k, mass * t, B).astype(float) for t in (c - f[k, i] - g[k, j], c, np.abs(c))
    )
    lower, bulk = ((x * a).sum(1) + (y * b).sum(1) for x, y in ((f, g), (np.abs(f), np.abs(g))))
    return Measured(slack, terms + bulk, upper - lower, off / a.sum(1))


def used(P: Array | Mask) -> tuple[Index, Index, Index]:
    """Return the pairs that plans use: problem, row and column."""
    # booleans are searched many at a time
    flat = np.flatnonzero(P.astype(bool))
    ki, j = np.divmod(flat, P.shape[2])
    k, i = np.divmod(ki, P.shape[1])
    return k, i, j


def _blocks(C: Array) -> list[tuple[slice, slice]]:
    """Return problems and rows of blocks that fit a cache."""
    B, n, m = C.shape
    whole = max(1, _TILE // (n * m))
    step = n if whole > 1 else max(1, _TILE // m)
    return [
        (slice(k, k + whole), slice(i, i + step))
        for k in range(0, B, whole)
        for i in range(0, n, step)
    ]


def _numbers(t: Array) -> Array:
    """Return zero where nothing was allowed."""
    return np.where(t == np.inf, 0.0, t)


def rounding(C: Array, t: Array, d: Array) -> Array:
    """Return what rounding took from d = C - t, exactly (Knuth, two-sum)."""
    part = d - C
    error: Array = (C - (d - part)) - (t + part)
    return error
