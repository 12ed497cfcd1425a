"""The network simplex on few pairs: those an entropic plan uses, then those its prices ask for.

A simplex looks at all pairs again and again, an optimal plan uses n + m of them. A few sweeps of
Sinkhorn's in single precision say which ones may be used, and what they leave out is priced:
where no pair costs less than the potentials that it was solved with, no pair was missed (column
generation). Where the entropic plan is far from one, or too many are missed, all pairs are looked
at instead.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sinkhorn_ot.problem import shown

from .pot import compiled


Array = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

# pairs of a problem from which on fewer of them are sooner solved for
MANY = 1 << 16
# pairs per point that are taken first, of up to a thousand points, and more in proportion; how many
# times as many are too many for ties
_PER_POINT, _POINTS = 8, 1000
_TIES = 4
# sweeps, and their regularisation relative to a small cost: the tenth part of all lie below that
_SWEEPS = 20
_SHARP, _SMALL = 0.15, 0.1
# costs that are looked at for what is small
_LOOKED = 6_000
# mass that an entropic plan of any use may miss
_OFF = 0.08
# rounds of pricing, what costs less by rounding per point, and how many misses make it hopeless
_ROUNDS = 6
_ROUNDING = 1e-13
_MISSED = 4
# costs looked at together
_TILE = 1 << 16
# no float32 sum is zero beside it
_LEAST = np.float32(1e-35)


@shown
class Found(NamedTuple):
    """An optimal plan on the pairs that it uses, and its potentials."""

    source: Index
    target: Index
    mass: Array
    f: Array
    g: Array


def solved_on_few(C: Array, a: Array, b: Array, limit: int) -> Found | None:
    """Return an optimal plan, or None where looking at all pairs is predicted to be quicker.

    Args:
        C: Costs, (n, m): 0 or more, about 1 at most but for prices of forbidden pairs.
        a: Source weights, (n,), all positive.
        b: Target weights, (m,), of the same sum.
        limit: Pivots at most.
    """
    n, m = C.shape
    if min(n, m) < 4 * _PER_POINT:
        return None
    with np.errstate(all="ignore"):
        chosen = _likely(C, a, b)
    if chosen is None:
        return None
    potentials: tuple[Array, ...] = ()
    for _ in range(_ROUNDS):
        pairs = np.flatnonzero(chosen)
        ends = (t.astype(np.uint64) for t in np.divmod(pairs, m))
        i, j, mass, _, f, g, code = compiled().emd_c_sparse(
            a, b, *ends, C.ravel()[pairs], limit, *potentials
        )
        if code != 1:
            return None
        missed = _missed(C, f, g)
        if len(missed) == 0:
            # artificial arcs leave a constant on them, far above the costs, that takes digits
            level = f.mean()
            return Found(i.astype(np.intp), j.astype(np.intp), mass, f - level, g + level)
        if len(missed) > _MISSED * (n + m):
            return None
        chosen.ravel()[missed] = True
        potentials = f, g
    return None


def _likely(C: Array, a: Array, b: Array) -> Mask | None:
    """Return which pairs an entropic plan uses most, or some plan does; None if it is bad."""
    n, m = C.shape
    stride = C.size // _LOOKED | 1
    seen = C.ravel()[::stride]
    seen = np.sort(seen[(seen > 0) & (seen <= 1)])
    if len(seen) == 0:
        return None
    K = (C * (-1 / (_SHARP * seen[int(_SMALL * len(seen))]))).astype(np.float32)
    np.exp(K, out=K)
    left, right = a.astype(np.float32), b.astype(np.float32)
    u, v = left, np.ones_like(right)
    for _ in range(_SWEEPS):
        u = left / (K @ v + _LEAST)
        v = right / (u @ K + _LEAST)
    if not np.abs(u * (K @ v) - left).sum() <= _OFF:
        return None
    # beside the product of the weights
    u, v = u / left, v / right
    i, j = np.divmod(np.arange(0, C.size, stride), m)
    share = np.sort(K[i, j] * u[i] * v[j])
    wanted = int(_PER_POINT * max(1.0, C.size**0.5 / _POINTS)) * (n + m)
    K *= u[:, None]
    K *= v
    chosen: Mask = K >= share[-1 - int(len(share) * wanted / C.size)]  # noqa: SIM300
    if np.count_nonzero(chosen) > _TIES * wanted:
        return None
    chosen[np.arange(n), K.argmax(1)] = True
    chosen[K.argmax(0), np.arange(m)] = True
    chosen.ravel()[_stairs(a, b)] = True
    return chosen


def _stairs(a: Array, b: Array) -> Index:
    """Return the pairs that a plan uses which fills places in order: some plan must exist."""
    left, right = np.cumsum(a), np.cumsum(b)
    start = np.r_[0.0, left[:-1], right[:-1]]
    i, j = (np.minimum(np.searchsorted(t, start, "right"), len(t) - 1) for t in (left, right))
    pairs: Index = i * len(b) + j
    return pairs


def _missed(C: Array, f: Array, g: Array) -> Index:
    """Return the pairs that cost less than the potentials say, by more than rounding."""
    n, m = C.shape
    least, step = -_ROUNDING * (n + m), max(1, _TILE // m)
    found = []
    for at in range(0, n, step):
        left = C[at : at + step] - g
        left -= f[at : at + step, None]
        if left.min() < least:
            found.append(at * m + np.flatnonzero(left < least))
    return np.concatenate(found) if found else np.zeros(0, np.intp)
