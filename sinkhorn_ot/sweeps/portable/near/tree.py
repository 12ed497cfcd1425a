"""Points in the order of a tree: neighbours side by side, in blocks that fit a box."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import shown


@shown
@dataclass(frozen=True, eq=False)
class Blocks:
    """A cloud cut into blocks of neighbours.

    Attributes:
        order: The place in the caller's cloud of each point, (n,).
        place: The place in this order of each of the caller's points, (n,).
        points: The points in this order, (n, d).
        starts: Where blocks begin, and the end, (k + 1,).
        low: The corner of each block's box, (k, d).
        high: The opposite corner, (k, d).
        block: The block of each point, (n,).
    """

    order: Tensor
    place: Tensor
    points: Tensor
    starts: Tensor
    low: Tensor
    high: Tensor
    block: Tensor

    def __len__(self) -> int:
        return len(self.low)

    @property
    def sizes(self) -> Tensor:
        """How many points each block holds, (k,)."""
        return self.starts.diff()

    def members(self, which: Tensor) -> Tensor:
        """Return the places in this order of the points of some blocks, one after another."""
        count = self.sizes[which]
        last = count.cumsum(0)
        first = (self.starts[which] - last + count).repeat_interleave(count)
        return first.add_(torch.arange(len(first)))


def blocks(points: Tensor, size: int) -> Blocks:
    """Halve a cloud along its widest side until blocks have at most `size` points.

    Args:
        points: (n, d), in float64 on a CPU.
        size: At least one.
    """
    X, order, starts = points.numpy(), np.arange(len(points)), [0, len(points)]
    for _ in range(max(0, math.ceil(math.log2(len(points) / size)))):
        cuts = [0]
        for start, stop in zip(starts[:-1], starts[1:], strict=True):
            part, half = order[start:stop], (stop - start) // 2
            side = X[part]
            widest = int((side.max(0) - side.min(0)).argmax())
            order[start:stop] = part[np.argpartition(side[:, widest], half)]
            cuts += [start + half, stop]
        starts = cuts
    at, ends = torch.from_numpy(order), torch.tensor(starts)
    place = torch.empty_like(at)
    place[at] = torch.arange(len(at))
    ordered = points[at]
    block = torch.repeat_interleave(torch.arange(len(starts) - 1), ends.diff())
    low, high = (gathered(ordered, block, len(starts) - 1, how) for how in ("amin", "amax"))
    return Blocks(at, place, ordered, ends, low, high, block)


def gathered(x: Tensor, block: Tensor, count: int, how: str) -> Tensor:
    """Reduce numbers of points, (n,) or (n, d), to those of their blocks by "amin", "amax"."""
    out = x.new_empty((count, *x.shape[1:]))
    index = block if x.ndim == 1 else block[:, None].expand_as(x)
    return out.scatter_reduce_(0, index, x, how, include_self=False)


def by_sorts(points: Tensor, size: int) -> Tensor:
    """Return an order in which every `size` points are a block of neighbours, (n,).

    Halves a cloud like `blocks`, where blocks end, on any device and without a wait for it.

    Args:
        points: (n, d).
        size: At least one.
    """
    order = torch.arange(len(points), device=points.device)
    number, count = order // size, math.ceil(len(points) / size)
    for level in range(math.ceil(math.log2(count))):
        part, at = (number << level) // count, points[order]
        low, high = (gathered(at, part, 1 << level, how) for how in ("amin", "amax"))
        widest = (high - low).argmax(1)[part]
        by = at.gather(1, widest[:, None])[:, 0].argsort(stable=True)
        order = order[by[part[by].argsort(stable=True)]]
    return order
