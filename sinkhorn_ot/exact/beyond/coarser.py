"""Fewer points in place of many: neighbours are told by what they cost beside a few others.

Costs to landmarks are coordinates, whatever the cost is. Points are ordered by a tree in them, and
of each of its blocks the point in the middle stands for all, with their mass.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import Cost, PointCloud, shown
from sinkhorn_ot.sweeps import blocks

from .entries import Array, Places, among, matrix, read


# points beside which the others are told apart
_LANDMARKS = 8
# how many neighbours one point stands for, and points that are so few that each stays
_SIZE, _STAY = 4, 64


@shown
class Part(NamedTuple):
    """A problem of all points, or of fewer: costs of one problem, flat, and weights of mass one."""

    cost: Cost
    a: Array
    b: Array


@shown
class Fewer(NamedTuple):
    """A problem of fewer points, and which ones they are."""

    part: Part
    rows: Tensor
    columns: Tensor


def fewer(part: Part, most: int) -> Fewer:
    """Return the problem between the middles of blocks of neighbours.

    Args:
        part: The problem.
        most: Entries of a matrix that may be stored, where the cost is not that of a cloud.
    """
    cost, random = part.cost, np.random.default_rng(0)
    n, m = cost.shape
    size = _SIZE
    while not isinstance(cost, PointCloud) and n * m > most * size**2:
        size *= 2
    marks = [_drawn(random, k).to(cost.device) for k in (n, m)]
    sides = matrix(cost, None, marks[1]), matrix(cost, marks[0], None).T
    (rows, a), (columns, b) = (
        _middles(_finite(t.cpu().numpy()), w, size)
        for t, w in zip(sides, (part.a, part.b), strict=True)
    )
    chosen = torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)
    return Fewer(Part(among(cost, *chosen), a, b * (a.sum() / b.sum())), *chosen)


def extended(cost: Cost, few: Fewer, f: Array) -> Array:
    """Return target potentials of all points, (m,), that the fewer's source potentials allow."""
    t = torch.from_numpy(f).to(cost.device)
    g = torch.full((cost.shape[1],), torch.inf, dtype=torch.float64, device=cost.device)
    for rows, C in read(cost, rows=few.rows):
        g = torch.minimum(g, (C - t[rows, None]).amin(0))
    return _finite(g.cpu().numpy())


def _drawn(random: np.random.Generator, count: int) -> Tensor:
    return torch.from_numpy(random.permutation(count)[:_LANDMARKS])


def _finite(t: Array) -> Array:
    """Return numbers in which what is forbidden is as far as can be."""
    allowed = np.isfinite(t)
    return t if allowed.all() else np.where(allowed, t, t.max(where=allowed, initial=0.0))


def _middles(features: Array, weight: Array, size: int) -> tuple[Places, Array]:
    """Return the middle point of each block, and the mass of all its points; none without mass."""
    if len(weight) <= _STAY:
        stay = np.flatnonzero(weight)
        return stay, weight[stay]
    tree = blocks(torch.from_numpy(np.ascontiguousarray(features)), size)
    order, block, count = tree.order.numpy(), tree.block.numpy(), len(tree)
    x, w = tree.points.numpy(), weight[order]
    mass = np.bincount(block, w, count).astype(float)
    share = np.divide(w, mass[block], out=np.zeros_like(w), where=w > 0)
    mean = np.stack([np.bincount(block, share * t, count) for t in x.T], 1)
    # a point without weight stands for nobody
    far = np.where(w > 0, ((x - mean[block]) ** 2).sum(1), np.inf)
    ranked = np.lexsort((far, block))
    middle: Places = order[ranked[np.searchsorted(block, np.arange(count))]]
    some = np.flatnonzero(mass)
    return middle[some], mass[some]
