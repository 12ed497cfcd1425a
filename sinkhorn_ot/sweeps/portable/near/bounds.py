"""What a pair of blocks can carry at most: potentials are nearly affine on a block.

The exponent of a pair is u_i + v_j - |x_i - y_j|^2 / h. On each block both potentials lie below an
affine function, which is as close as they are smooth; with those the exponent is concave, and a sum
over coordinates, so that its largest value over two boxes is found coordinate by coordinate: on an
edge of a rectangle it is a parabola, and from inside it rises along x = y to an edge.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_ot.problem import shown

from .tree import Blocks, gathered


# bounds that are formed together
_TILE = 1 << 18
# beside the largest moment of a block, what makes its fit one
_RIDGE = 1e-12


@shown
@dataclass(frozen=True, eq=False)
class Affine:
    """A function above a potential on each block: level + <slope, point>.

    Attributes:
        level: (k,); -inf where no point has weight.
        slope: (k, d).
    """

    level: Tensor
    slope: Tensor


def above(at: Blocks, potential: Tensor) -> Affine:
    """Fit a potential (n,) on every block, and lift the fit above it; -inf lies below all."""
    x, block, count = at.points, at.block, len(at)
    least = gathered(potential.masked_fill(potential == -math.inf, math.inf), block, count, "amin")
    low = least.masked_fill(least == math.inf, 0.0)
    t = torch.where(potential == -math.inf, low[block], potential)
    middle, mean = (_mean(at, values) for values in (x, t))
    dx, dt = x - middle[block], t - mean[block]
    moment = x.new_zeros(count, *x.shape[1:], x.shape[1])
    moment.index_add_(0, block, dx[:, :, None] * dx[:, None, :])
    right = x.new_zeros(count, x.shape[1]).index_add_(0, block, dx * dt[:, None])
    # where points lie on a plane any slope across it will do
    ridge = _RIDGE * moment.diagonal(dim1=-2, dim2=-1).amax(-1) + torch.finfo(x.dtype).tiny
    moment.diagonal(dim1=-2, dim2=-1).add_(ridge[:, None])
    slope = torch.linalg.solve(moment, right)
    rest = gathered(dt - (slope[block] * dx).sum(1), block, count, "amax")
    level = mean - (slope * middle).sum(1) + rest
    return Affine(level.masked_fill(least == math.inf, -math.inf), slope)


def most(rows: Blocks, u: Affine, columns: Blocks, v: Affine, h: float) -> Tensor:
    """Return the largest exponent of any pair of two blocks, (rows, columns)."""
    out = u.level.new_empty(len(rows), len(columns))
    step = max(1, _TILE // len(columns))
    for start in range(0, len(rows), step):
        at = slice(start, start + step)
        part = u.level[at, None] + v.level
        for k in range(rows.low.shape[1]):
            x = rows.low[at, k, None], rows.high[at, k, None]
            y = columns.low[:, k], columns.high[:, k]
            part += _rectangle(x, u.slope[at, k, None], y, v.slope[:, k], h)
        out[at] = part
    return out


def _mean(at: Blocks, values: Tensor) -> Tensor:
    """Return the means of numbers of points on each block."""
    sums = values.new_zeros(len(at), *values.shape[1:]).index_add_(0, at.block, values)
    return sums / at.sizes.to(values.dtype).reshape(-1, *[1] * (values.ndim - 1))


def _rectangle(
    x: tuple[Tensor, Tensor], a: Tensor, y: tuple[Tensor, Tensor], b: Tensor, h: float
) -> Tensor:
    """Return the maximum of a x + b y - (x - y)^2 / h over rectangles."""
    best: Tensor | None = None
    for ends, rise, others, slope in ((x, a, y, b), (y, b, x, a)):
        for end in ends:
            # the top of the parabola along this edge, or the end of it that is nearer
            top = torch.minimum(torch.maximum(end + slope * (h / 2), others[0]), others[1])
            value = rise * end + slope * top - (end - top).square_() / h
            best = value if best is None else torch.maximum(best, value)
    assert best is not None
    return best
