"""One plain problem: the simplex and its proof, where calls cost more than arithmetic.

It does for one problem what `rounds.attempted` does for a batch, by the same formulas. What is not
proved here is left to all the means there are.
"""

from typing import NamedTuple

import numpy as np
import torch

from sinkhorn_ot.problem import Problem, shown
from sinkhorn_ot.results import Status, Stored, Transport

from .engines import (
    EQUAL,
    MANY,
    as_matching,
    assignments,
    climbed,
    matched,
    pivots,
    simplex_of,
)
from .proof import Array, Index, Measured, proved, rounding


# pairs up to which a problem is taken whole: larger ones are read in blocks
SMALL = 1 << 21
# slack, relative to its terms, at which potentials have all their digits
_SHARP = 32 * float(np.finfo(np.float64).eps)
# what a potential of the simplex may have lost per point, relative to the largest cost
_LOST = 64 * float(np.finfo(np.float64).eps)
# what a plan without a proof may be above the optimum, relative to its value, and the factor up to
# which costs are as good as those of one
_SURE = 1e-9
_NEAR_ONE = 1e3
# how far from one a mass is one but for rounding
_ONE = 1e-12


@shown
class _Plan(NamedTuple):
    """The pairs that a plan uses, row by row, and the problem that it is for."""

    C: Array
    a: Array
    b: Array
    i: Index
    j: Index
    mass: Array
    cost: Array


def is_plain(p: Problem) -> bool:
    """Say whether a problem is one for `solved_plain`."""
    one = p.shape[0] == 1 and p.shape[1] * p.shape[2] <= SMALL and not p.bounds.forbids
    return one and bool(p.a.amin() > 0) and bool(p.b.amin() > 0)


def solved_plain(p: Problem) -> Transport | None:
    """Return the answer to one problem with positive weights and no forbidden pair, if proved.

    Args:
        p: The problem in float64 on the CPU.
    """
    C, a, b = (t.numpy()[0] for t in (p.cost.rows(0, p.shape[1]), p.a, p.b))
    n, m = C.shape
    R, g, unit = _reduced(C)
    matched = _matched(R, a, b)
    name, engine = ("assignment", _matching) if matched else ("network simplex", _simplex)
    P, u, v = engine(R, a, b)
    pairs = np.flatnonzero(P.astype(bool))
    i, j = np.divmod(pairs, m)
    plan = _Plan(C, a, b, i, j, P.ravel()[pairs], C.ravel()[pairs])
    if not matched:
        v = _sharpened(R, pairs, u, v)
    g += unit * v
    f, known = _proof(plan, g)
    if known.slack > _SHARP * known.scale or not proved(known):
        return None
    coupling = Stored(p, *(torch.from_numpy(t[None]) for t in (P, f, g)))
    # from arrays, which takes a fraction of what it does from numbers
    sweeps, missed = (torch.from_numpy(np.array([x])) for x in (0, known.marginal_error))
    return Transport(p, coupling, f"exact: {name}", [Status.OPTIMAL], sweeps, missed)


def unproved_plan(p: Problem) -> Array | None:
    """Return a plan of one such problem, (n, m), that is optimal to nine digits or more.

    It takes half the time where calls cost more than arithmetic. Where the value is small beside
    the largest cost, potentials of the simplex must show that nothing more is left to gain; None if
    they do not. The digits beyond are not proved.

    Args:
        p: The problem in float64 on the CPU.
    """
    C, a, b = (t.numpy()[0] for t in (p.cost.rows(0, p.shape[1]), p.a, p.b))
    if _matched(C, a, b):
        return matched(C, a)
    low, high = p.bounds.low, p.bounds.high
    if C.size >= MANY or not 1 / _NEAR_ONE < high - low < _NEAR_ONE:
        # the simplex and what looks at few pairs need costs of a certain size; pivots are the same
        C, low, high = (C - low) / (high - low), 0.0, 1.0
    P, u, v = _simplex(C, a, b)
    value, mass = np.vdot(P, C), np.add.reduce(a)
    most = _SURE * (value - min(low, 0.0) * mass)
    # what the simplex takes for rounding, beside its artificial arcs, cannot be more
    if _LOST * sum(C.shape) * (1 + max(high, -low)) * mass <= most:
        return P
    if _below(C, a, b, v) >= value - most:
        return P
    # a small value takes more digits of potentials
    v = _sharpened(C, np.flatnonzero(P.astype(bool)), u - u.mean(), v)
    return P if _below(C, a, b, v) >= value - most else None


def _matched(R: Array, a: Array, b: Array) -> bool:
    """Say whether a matching is sooner found than what the simplex finds."""
    # two weights tell most of those that are not equal
    equal = a[0] <= EQUAL * b[0] <= EQUAL**2 * a[0]
    return equal and bool(as_matching(R[None], a[None], b[None])[0])


def _simplex(R: Array, a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return the plan of the network simplex, and potentials without their last digits."""
    total = np.add.reduce(a)
    if abs(total - 1) <= _ONE:
        # other last digits are other pivots, and seldom fewer
        return simplex_of(R, a, b, pivots(*R.shape))[:3]
    P, u, v, _ = simplex_of(R, a / total, b / total, pivots(*R.shape))
    P *= total
    return P, u, v


def _matching(R: Array, a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return the plan of a matching, and potentials."""
    P, u, v, *_ = assignments(R[None], a[None], b[None], None)
    return P[0], u[0], v[0]


def _below(C: Array, a: Array, b: Array, g: Array) -> float:
    """Return what target potentials prove that no plan costs less than, but for rounding."""
    return float(np.minimum.reduce(C - g, 1) @ a + g @ b)


def _sharpened(R: Array, pairs: Index, u: Array, v: Array) -> Array:
    """Return target potentials of the simplex with their last digits, from the pairs it uses."""
    return climbed(R, pairs if len(pairs) == sum(R.shape) - 1 else _tight(R, v), u)


def _tight(R: Array, g: Array) -> Index:
    """Return the pairs that cost what potentials say, but for what those have lost.

    Among them is the forest of a simplex, of which a plan of its own may use a part.
    """
    left = R - g
    left -= left.min(1)[:, None]
    return np.flatnonzero(left <= _LOST * sum(R.shape))


def _reduced(C: Array) -> tuple[Array, Array, float]:
    """Return R, g and unit of C = f + g + unit * R, as `proof.reduced` does."""
    # as calls of ufuncs, which are shorter than those of methods
    R = C - np.minimum.reduce(C, 1)[:, None]
    g = np.minimum.reduce(R, 0)
    R -= g
    unit = float(np.maximum.reduce(R, None)) or 1.0
    R /= unit
    return R, g, unit


def _proof(plan: _Plan, g: Array) -> tuple[Array, Measured]:
    """Return the f that g allows, and what is between both and a plan, as `proof.measured`."""
    C, a, b, i, j, mass, cost = plan
    f = _lowered(C, g)
    rows, columns = np.bincount(i, mass), np.bincount(j, mass)
    off = np.add.reduce(np.abs(rows - a)) + np.add.reduce(np.abs(columns - b))
    slack = mass @ (cost - f[i] - g[j])
    scale = mass @ np.abs(cost) + np.abs(f) @ a + np.abs(g) @ b
    gap = mass @ cost - (f @ a + g @ b)
    return f, Measured(slack, scale, gap, off / np.add.reduce(a))


def _lowered(C: Array, t: Array) -> Array:
    """Return min_j C_ij - t_j, rounded down, as `proof.lowered` does."""
    rest = C - t
    low: Array = np.minimum.reduce(rest, 1)
    least = np.flatnonzero(rest == low[:, None])
    i, j = np.divmod(least, C.shape[1])
    lies = rounding(C.ravel()[least], t[j], low[i]) < 0
    if lies.any():
        low[i[lies]] = np.nextafter(low[i[lies]], -np.inf)
    return low
