"""Fewer points in place of many: the means of small blocks."""

import math

import torch
from torch import Tensor

from sinkhorn_ot.problem import PointCloud

from .tree import Blocks, blocks


# points of a block at least, and their square beside those of a cloud
_SIZE, _GROWTH = 64, 16
# how many points one of fewer stands for
_FEW = 16


def tree(cost: PointCloud, side: int, size: int | None = None) -> Blocks:
    """Return a cloud in order, in coordinates whose squared distances are the costs."""
    points = cost.placed[side][0]
    return blocks(points, size or max(_SIZE, math.isqrt(len(points) // _GROWTH)))


def fewer(cost: PointCloud, side: int, weight: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return means and masses of small blocks, (k, d) and (k,), and the mean square of their size.

    Args:
        cost: The clouds.
        side: 0 for rows, 1 for columns.
        weight: What points weigh, (n,).
    """
    at = tree(cost, side, _FEW)
    w = weight[at.order]
    mass = w.new_zeros(len(at)).index_add_(0, at.block, w)
    sums = torch.zeros_like(at.low).index_add_(0, at.block, w[:, None] * at.points)
    some = mass > 0
    size = float((at.high - at.low).square().sum(-1)[some].mean())
    return sums[some] / mass[some, None], mass[some], size
