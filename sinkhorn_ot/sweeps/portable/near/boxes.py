"""A cloud in the boxes of a grid, and polynomials on each box that stand for its points.

A smooth function on a box is told by its values at the Chebyshev nodes; points spread what they
weigh over the nodes, and gather what they ask for from them, by one and the same table.
"""

import math

import torch
from torch import Tensor


# numbers of a table that are made at once
_TABLE = 1 << 20
# by how much the points of boxes that go together may differ in number
_ALIKE, _SPARE = 1.2, 2
# what holds a slope to that of the surroundings, beside squares of distances in sides
_RIDGE = 0.1


class Boxes:
    """The points of a cloud, box by box.

    Attributes:
        shape: Boxes along each coordinate.
        low: The corner of the grid, (d,).
        which: The boxes that hold points, numbered through the grid, (k,).
        block: Among these, the box of each of the caller's points, (n,).
        within: Where points are in their box, in sides from its middle, (n, d).
        nodes: All nodes of a box, in sides from its middle, (p^d, d).
    """

    def __init__(self, points: Tensor, side: float, p: int) -> None:
        """Begin.

        Args:
            points: (n, d), in float64 on a CPU.
            side: Of a box.
            p: Nodes along a coordinate.
        """
        self.low = points.amin(0)
        from_low = (points - self.low) / side
        at = from_low.floor()
        self.shape: list[int] = (at.amax(0).long() + 1).tolist()
        flat = at[:, 0].long()
        for k, size in enumerate(self.shape[1:], 1):
            flat = flat * size + at[:, k].long()
        self.which, self.block, count = torch.unique(flat, return_inverse=True, return_counts=True)
        self.within = from_low - at - 0.5
        # where boxes are, in sides
        self._at = at.new_empty(len(self.which), points.shape[1])
        self._at[self.block] = at
        line = chebyshev(p)
        d = points.shape[1]
        self.nodes = torch.cartesian_prod(*[line] * d).reshape(-1, d)
        # a last row of nothing, for places without a point
        self._table = torch.cat([basis(2 * self.within, p), points.new_zeros(1, d, p)]).float()
        self._groups = _groups(self.block, count, max(1, _TABLE // p ** max(1, d - 1)))

    def slopes(self, t: Tensor) -> Tensor:
        """Fit numbers of points, (n,), by an affine function around each box: its slope, (k, d).

        Where a box has few points its surroundings tell it, and theirs.
        """
        some = (t > -math.inf).to(t.dtype)
        t, d = t.masked_fill(t == -math.inf, 0.0), self.within.shape[1]
        x = self._at[self.block] + self.within
        products = (x[:, :, None] * x[:, None, :]).flatten(1)
        each = torch.cat([torch.ones_like(x[:, :1]), x, t[:, None], t[:, None] * x, products], 1)
        sums = self._sums(some[:, None] * each)
        slopes = t.new_zeros(len(self.which), d)
        for level in range(max(self.shape).bit_length(), -1, -1):
            # boxes that fall into one of this level
            around = torch.div(self._at, 1 << level, rounding_mode="floor")
            _, part = torch.unique(around, dim=0, return_inverse=True)
            of = sums.new_zeros(int(part.max()) + 1, sums.shape[1]).index_add_(0, part, sums)
            mass, first, total, moved, second = torch.split(of, [1, d, 1, d, d * d], 1)
            middle = first / mass.clamp(min=1.0)
            moment = second.view(-1, d, d) - middle[:, :, None] * first[:, None, :]
            # of what the slope of the surroundings leaves
            before = t.new_empty(len(of), d).index_copy_(0, part, slopes)
            right = moved - middle * total - (moment @ before[:, :, None])[:, :, 0]
            moment.diagonal(dim1=1, dim2=2).add_(_RIDGE)
            slopes = (before + torch.linalg.solve(moment, right))[part]
        return slopes

    def peaks(self, t: Tensor) -> Tensor:
        """Return the largest number of a box's points, (k,)."""
        return t.new_empty(len(self.which)).scatter_reduce_(
            0, self.block, t, "amax", include_self=False
        )

    def spread(self, weight: Tensor) -> Tensor:
        """Return at the nodes of each box what stands for weights (n,) of points, (k, p^d)."""
        weight = torch.cat([weight, weight.new_zeros(1)]).float()
        out = weight.new_zeros(len(self.which), len(self.nodes), dtype=torch.float64)
        for boxes, points in self._groups:
            first, rest = self._factors(points)
            sums = torch.bmm((first * weight[points][..., None]).mT, rest).flatten(1)
            out.index_add_(0, boxes, sums.double())
        return out

    def gather(self, values: Tensor) -> Tensor:
        """Return at all points the polynomials with these values (k, p^d) at the nodes, (n,)."""
        values, p = values.float(), self._table.shape[-1]
        out = values.new_empty(len(self._table))
        for boxes, points in self._groups:
            first, rest = self._factors(points)
            found = torch.bmm(first, values[boxes].view(len(boxes), p, -1)).mul_(rest).sum(-1)
            out[points] = found
        return out[:-1].double()

    def _factors(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return polynomials at points, of the first coordinate and of the others together."""
        table = self._table[points]
        rest = table.new_ones(*points.shape, 1)
        for k in range(1, table.shape[2]):
            rest = (rest[..., :, None] * table[:, :, k, None, :]).flatten(2)
        return table[:, :, 0], rest

    def _sums(self, values: Tensor) -> Tensor:
        """Return sums of numbers of points over each box."""
        return values.new_zeros(len(self.which), *values.shape[1:]).index_add_(
            0, self.block, values
        )


def chebyshev(p: int) -> Tensor:
    """Return p nodes on a side of length one around zero."""
    return torch.cos((torch.arange(p, dtype=torch.float64) + 0.5) * (math.pi / p)) / 2


def basis(t: Tensor, p: int) -> Tensor:
    """Return the polynomials that are one at a node and zero at the others, (..., p).

    Args:
        t: Where, in [-1, 1], (...).
        p: How many.
    """
    k = torch.arange(p, dtype=torch.float64)
    at_nodes = torch.cos(k[:, None] * torch.arccos(2 * chebyshev(p))) * (2 / p)
    at_nodes[0] /= 2
    return torch.cos(k * torch.arccos(t.clamp(-1, 1))[..., None]) @ at_nodes


def _groups(block: Tensor, count: Tensor, most: int) -> list[tuple[Tensor, Tensor]]:
    """Return boxes with about as many points each, (g,), and these points, (g, c).

    Where a box has fewer points than others of its group there is the number of all points. One of
    more than `most` points comes in parts.
    """
    order, starts = block.argsort(stable=True), count.cumsum(0) - count
    order = torch.cat([order, order.new_tensor([len(block)])])
    parts = (count + (most - 1)) // most
    which = torch.arange(len(count)).repeat_interleave(parts)
    past = most * (torch.arange(len(which)) - (parts.cumsum(0) - parts)[which])
    size = (count[which] - past).clamp(max=most)
    by = size.argsort(stable=True)
    sizes, out, start = size[by].tolist(), [], 0
    while start < len(sizes):
        stop, least = start + 1, sizes[start]
        while (
            stop < len(sizes)
            and sizes[stop] <= _ALIKE * least + _SPARE
            and (stop - start + 1) * sizes[stop] <= most
        ):
            stop += 1
        some = by[start:stop]
        at = torch.arange(sizes[stop - 1])
        first = (starts[which[some]] + past[some])[:, None]
        out.append((which[some], order[torch.where(at < size[some, None], first + at, len(block))]))
        start = stop
    return out
