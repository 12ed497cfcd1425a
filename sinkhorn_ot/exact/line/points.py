"""Clouds of points on a line, which need no linear program: the plan and its proof by sorting.

The plan keeps the order of points. Potentials along its stairs are feasible because the cost is
Monge's; what rounding may have added on the way is taken off, so that they are also as numbers.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.exact.proof import Measured, proved
from sinkhorn_ot.problem import PointCloud, Problem
from sinkhorn_ot.results import Sparse, Status, Transport

from .arrays import joined, ordered, put, summed, taken
from .costs import Cost, Power, Product
from .staircase import Stairs, stairs


Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

# metrics that are the distance on a line
_DISTANCES = ("euclidean", "manhattan", "chebyshev")
# digits that a sum may have lost, of all that was summed
_LOST = 8 * float(np.finfo(np.float64).eps)


def line_cost(p: Problem) -> Cost | None:
    """Return what pairs cost if the points are on a line and the best plan keeps their order."""
    cloud = p.cost
    if not (isinstance(cloud, PointCloud) and cloud.x.shape[-1] == 1 and p.exact):
        return None
    if cloud.metric in _DISTANCES and cloud.power >= 1:
        return Power(cloud.power)
    if cloud.metric == "sqeuclidean":
        return Power(2.0)
    return Product() if cloud.metric == "dot" else None


def solved_on_line(p: Problem, cost: Cost) -> Transport:
    """Return the answer to problems whose points are on a line.

    Args:
        p: The problem.
        cost: What its pairs cost.
    """
    x, y = _coordinates(p)
    a, b = (t.detach().cpu().double().numpy() for t in (p.a, p.b))
    b = b * (a.sum(1) / b.sum(1))[:, None]
    orders = ordered(x), ordered(y)
    weights = taken(a, orders[0]), taken(b, orders[1])
    way = stairs(*map(_sums, weights)).between(*weights)
    x, y = taken(x, orders[0]), taken(y, orders[1])
    priced = cost.at(taken(x, way.i), taken(y, way.j))
    f, g, terms = _potentials(way, cost, x, y, priced)
    # sources and targets as they are numbered by the caller
    pairs = taken(orders[0], way.i), taken(orders[1], way.j)
    known = _measured(way, priced, (f, g), terms, weights)
    duals = put(f, orders[0]), put(g, orders[1])
    good = proved(known)
    ended = [Status.OPTIMAL if one else Status.STALLED for one in good.tolist()]
    return _told(p, pairs, way.mass, duals, (way.mass * priced).sum(1), ended, known.marginal_error)


def _coordinates(p: Problem) -> tuple[Array, Array]:
    """Return where points are, (B, n) and (B, m)."""
    cloud = p.cost
    assert isinstance(cloud, PointCloud)
    size = p.shape[0]
    scale = 1.0 if cloud.scale is None else cloud.scale.detach().double()
    x, y = (
        (t.detach().double() * scale)[..., 0].cpu().expand(size, -1).numpy()
        for t in (cloud.x, cloud.y)
    )
    return x, y


def _sums(weights: Array) -> tuple[Array, Array]:
    """Return running sums in order, and what is left of each beyond its digits."""
    high, low = summed(weights)
    # sums that drift would be merged in another order than they are
    near: Array = np.maximum.accumulate(high + low, 1)
    return near, (high - near) + low


def _potentials(
    way: Stairs, cost: Cost, x: Array, y: Array, priced: Array
) -> tuple[Array, Array, tuple[Array, Array]]:
    """Return feasible potentials in order, and the size of the terms that each was summed of.

    They are summed from the pair in the middle of the mass on, so that points far off cost others
    no digits.
    """
    half = way.mass.sum(1, keepdims=True) / 2
    middle = np.minimum((way.mass.cumsum(1) < half).sum(1), way.mass.shape[1] - 1)[:, None]
    starts = np.zeros_like(priced[:, :1]), taken(priced, middle)
    found, sizes = [], []
    at = taken(way.i, middle), taken(way.j, middle)
    for rise, start, k in zip(way.rises(cost, x, y), starts, at, strict=True):
        none = np.zeros_like(start)
        if rise.shape[1] == 0:
            potential, size = start, np.abs(start)
        else:
            high, low = (joined(none, t) for t in summed(rise))
            potential = (high - taken(high, k)) + (low - taken(low, k)) + start
            path = joined(none, np.abs(rise).cumsum(1))
            size = np.abs(path - taken(path, k)) + np.abs(potential) + np.abs(start)
        found.append(potential - _LOST * size)
        sizes.append(size)
    return found[0], found[1], (sizes[0], sizes[1])


def _measured(
    way: Stairs,
    priced: Array,
    duals: tuple[Array, Array],
    terms: tuple[Array, Array],
    weights: tuple[Array, Array],
) -> Measured:
    """Measure what is between the plan and the potentials, all in order."""
    (f, g), (a, b) = duals, weights
    off = np.zeros(len(a))
    for w, t in ((a, way.i), (b, way.j)):
        rows = np.arange(len(t))[:, None] * w.shape[1] + t
        held = np.bincount(rows.ravel(), way.mass.ravel(), w.size).reshape(w.shape)
        off += np.abs(held - w).sum(1)
    slack = (way.mass * (priced - taken(f, way.i) - taken(g, way.j))).sum(1)
    scale = (way.mass * np.abs(priced)).sum(1) + (terms[0] * a).sum(1) + (terms[1] * b).sum(1)
    gap = (way.mass * priced).sum(1) - (f * a).sum(1) - (g * b).sum(1)
    return Measured(slack, scale, gap, off / a.sum(1))


def _told(
    p: Problem,
    pairs: tuple[Index, Index],
    mass: Array,
    duals: tuple[Array, Array],
    cost: Array,
    ended: list[Status],
    missed: Array,
) -> Transport:
    """Return what was found, on the device of the problem."""
    on = p.a.device
    p = replace(p, a=p.a.double(), b=p.b.double(), reg=p.reg.double())
    k, entry = np.nonzero(mass)
    index = np.stack([k, *(t[k, entry] for t in pairs)])
    held = torch.from_numpy(index).to(on), torch.from_numpy(mass[k, entry]).to(p.a)
    P = torch.sparse_coo_tensor(*held, p.shape, check_invariants=False)
    f, g, paid = (torch.from_numpy(t).to(p.a) for t in (*duals, cost))
    measured: Tensor = torch.from_numpy(missed).to(p.a)
    sweeps = torch.zeros(len(mass), dtype=torch.int64, device=on)
    coupling = Sparse(p, P, f, g, paid)
    return Transport(p, coupling, "exact: sorting", ended, sweeps, measured)
