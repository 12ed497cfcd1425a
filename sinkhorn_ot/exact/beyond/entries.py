"""Costs as pairs on demand are read: a block of rows at a time, of all points or of some of them.

Whatever a cost is, points are told apart by what they cost beside a few others; only what is asked
for is ever formed.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.problem import Cost, Dense, Index, PointCloud, at_once


Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

# pairs looked at together
TILE = 1 << 17
_EPS = float(np.finfo(np.float64).eps)


def read(
    cost: Cost, rows: Tensor | None = None, columns: Tensor | None = None
) -> Iterator[tuple[Index, Tensor]]:
    """Yield blocks of a matrix of costs in float64, each with the places of its rows.

    Args:
        cost: The costs of one problem, flat.
        rows: Numbers of some rows, None for all. Places are among them.
        columns: Numbers of some columns, None for all.
    """
    if isinstance(cost, PointCloud):
        cost, rows, columns = _among_points(cost, rows, columns), None, None
    width = cost.shape[1] if columns is None else len(columns)
    size = max(1, at_once(cost.device, TILE) // width)
    if isinstance(cost, Dense) and rows is not None:
        blocks = _chosen(cost.C[0], rows, size)
    else:
        blocks = ((index, C[0]) for index, C in cost.tiles(size))
        if rows is not None:
            blocks = _found(blocks, rows, cost.shape[0])
    for index, C in blocks:
        yield index, (C if columns is None else C.index_select(1, columns)).double()


def matrix(cost: Cost, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """Return the costs of some rows and columns in float64, (r, c)."""
    n, m = (
        len(t) if t is not None else k for t, k in zip((rows, columns), cost.shape, strict=True)
    )
    out = torch.empty((n, m), dtype=torch.float64, device=cost.device)
    for index, C in read(cost, rows, columns):
        out[index] = C
    return out


def among(cost: Cost, rows: Tensor, columns: Tensor) -> Cost:
    """Return the cost among some points: of clouds it is that of fewer points, else stored."""
    if isinstance(cost, PointCloud):
        return _among_points(cost, rows, columns)
    return Dense(matrix(cost, rows, columns)[None])


def at(cost: Cost, i: Places, j: Places) -> Array:
    """Return what pairs cost, (K,), as exactly as it can be told."""
    on = cost.device
    rows, columns = torch.from_numpy(i).to(on), torch.from_numpy(j).to(on)
    if isinstance(cost, Dense):
        found = cost.C[0, rows, columns]
    elif isinstance(cost, PointCloud) and cost.metric == "sqeuclidean":
        x, y = cost.placed
        found = (x[0, rows] - y[0, columns]).square().sum(-1)
    elif isinstance(cost, PointCloud):
        left, right = cost.factors
        found = cost.rule.join(left[0, rows, None], right[0, columns, None])[:, 0, 0]
    else:
        found = _passed(cost, rows, columns)
    told: Array = found.double().cpu().numpy()
    return told


def margins(cost: Cost) -> tuple[Array, Array]:
    """Return the sizes that costs are rounded beside, a share of each point: (n,) and (m,).

    The cost of a pair, however it is computed, is off by its digits of the sum of both shares at
    most; costs that are read are numbers, and off by nothing.
    """
    n, m = cost.shape
    if not isinstance(cost, PointCloud) or not isinstance(cost.metric, str):
        return np.zeros(n), np.zeros(m)
    x, y = (t[0].cpu().numpy() for t in cost.placed)
    if cost.metric == "cosine":
        return np.ones(n), np.ones(m)
    if cost.metric in ("sqeuclidean", "dot"):
        return (2 * x * x).sum(1), (2 * y * y).sum(1)
    centre = (x.mean(0) + y.mean(0)) / 2
    sums = (np.abs(t - centre).sum(1) for t in (x, y))
    share_x, share_y = ((2 * t) ** cost.power for t in sums)
    return share_x, share_y


def digits(cost: Cost) -> float:
    """Return what costs of points may be off by, beside the sizes that `margins` tells."""
    return _EPS * (4 + 2 * math.sqrt(cost.x.shape[-1])) if isinstance(cost, PointCloud) else 0.0


def _among_points(cost: PointCloud, rows: Tensor | None, columns: Tensor | None) -> PointCloud:
    if rows is None and columns is None:
        return cost
    x = cost.x if rows is None else cost.x[:, rows]
    y = cost.y if columns is None else cost.y[:, columns]
    return replace(cost, x=x, y=y)


def _chosen(C: Tensor, rows: Tensor, size: int) -> Iterator[tuple[Index, Tensor]]:
    for start in range(0, len(rows), size):
        part = slice(start, min(len(rows), start + size))
        yield part, C.index_select(0, rows[part])


def _found(
    blocks: Iterator[tuple[Index, Tensor]], rows: Tensor, n: int
) -> Iterator[tuple[Index, Tensor]]:
    """Yield what is wanted of all rows."""
    place = torch.full((n,), -1, device=rows.device)
    place[rows] = torch.arange(len(rows), device=rows.device)
    for index, C in blocks:
        where = place[index]
        kept = where >= 0
        if bool(kept.any()):
            yield where[kept], C[kept]


def _passed(cost: Cost, rows: Tensor, columns: Tensor) -> Tensor:
    """Return what pairs cost by a pass over all rows."""
    out = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    order = rows.argsort()
    ordered = rows[order]
    for index, C in read(cost):
        numbers = torch.arange(cost.shape[0], device=rows.device)[index]
        starts, ends = (torch.searchsorted(ordered, numbers, right=side) for side in (False, True))
        counts = ends - starts
        line = torch.arange(len(numbers), device=rows.device).repeat_interleave(counts)
        first = (ends - counts.cumsum(0)).repeat_interleave(counts)
        pairs = order[first + torch.arange(len(line), device=rows.device)]
        out[pairs] = C[line, columns[pairs]]
    return out
