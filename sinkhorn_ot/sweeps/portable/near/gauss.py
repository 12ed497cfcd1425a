"""Sums over all pairs of two clouds by polynomials: no pair is looked at.

exp(-|x - y|^2 / h) is a product over coordinates. On boxes about as wide as it is, polynomials of
few nodes tell it, so that sums over points become sums over the nodes of a grid, coordinate by
coordinate. Potentials vary much over a box, but nearly as affine functions: times exp of these the
kernel is a bell as before, elsewhere. Magnitudes are kept apart for each box, as logarithms.

Source: L. Greengard, J. Strain, The fast Gauss transform, SIAM J. Sci. Stat. Comput. 1991, by
interpolation as in W. Fong, E. Darve, The black-box fast multipole method, J. Comput. Phys. 2009.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .boxes import Boxes, chebyshev
from .tree import Blocks


# nodes of a box along a coordinate, and its side in widths of the kernel: about five digits
_NODES, _SIDE = 8, 1.25
# rows that pairs are summed for to tell what polynomials are worth, and what they may be wrong by
_TOLD, _WRONG = 16, 1e-4
# numbers that are multiplied together
_TILE = 1 << 16
# stands for the logarithm of zero where -inf would make no number
_NONE = -1e300
# nanoseconds of a pair, of a point's node and of a product of nodes; copies of the grid
_PAIR, _POINT, _PRODUCT, _COPIES = 2.5, 2.5, 0.3, 4


class Gauss:
    """Sums of exp(t_j - |x_i - y_j|^2 / h) over one of two clouds, at the points of the other."""

    def __init__(self, clouds: Sequence[Tensor], h: float) -> None:
        """Begin.

        Args:
            clouds: (n, d) and (m, d), in float64 on a CPU.
            h: What squared distances are divided by.
        """
        self._clouds, self._h = clouds, h
        middles = [t.mean(0) for t in clouds]
        apart = middles[0] - middles[1]
        centred = [t - middle for t, middle in zip(clouds, middles, strict=True)]
        # what squared distances are more than those of clouds around one middle is affine
        self._tilt = [sign * 2 / h * (t @ apart) for sign, t in zip((1, -1), centred, strict=True)]
        self._tilt[0] += float(apart.square().sum()) / h
        self._side = _SIDE * math.sqrt(h)
        self._boxes = [Boxes(t, self._side, _NODES) for t in centred]

    def log_sums(self, k: int, t: Tensor) -> Tensor | None:
        """Return the logarithms of the sums over cloud `k` at the other's points.

        Args:
            k: 0 or 1.
            t: Logarithms of what the points of cloud k weigh; somewhere above -inf.

        Returns:
            (n,) or (m,); None where polynomials do not serve.
        """
        other = 1 - k
        F, scale = self._convolved(k, *self._charges(k, t - self._tilt[k]))
        # a smooth function's logarithm is nearly affine on a box
        nodes = self._boxes[other].nodes
        fit = torch.linalg.pinv(torch.cat([nodes, torch.ones_like(nodes[:, :1])], 1))[:-1]
        slopes = -F.clamp(min=torch.finfo(F.dtype).tiny).log() @ fit.T
        base, values = self._gathered(other, F, scale, slopes)
        if not float(values.amin()) > 0:
            return None
        out = base + values.log() - self._tilt[other]
        return out if self._served(k, t, out) else None

    def product(self, u: Tensor, v: Tensor, share: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by P^T diag(share) P, P = exp(u_i + v_j - |x_i - y_j|^2 / h)."""
        ends = [t - tilt for t, tilt in zip((u, v), self._tilt, strict=True)]
        slopes = [at.slopes(t) for at, t in zip(self._boxes, ends, strict=True)]

        def across(k: int, x: Tensor) -> Tensor:
            charges = self._charges(k, ends[k], slopes[k], x)
            F, scale = self._convolved(k, *charges)
            base, values = self._gathered(1 - k, F, scale, slopes[1 - k])
            return (base + ends[1 - k]).exp_() * values

        return lambda x: across(0, share * across(1, x))

    def _served(self, k: int, t: Tensor, sums: Tensor) -> bool:
        """Say whether the sums of a few rows are as pairs say."""
        at = torch.linspace(0, len(sums) - 1, _TOLD).long()
        x, y = self._clouds[1 - k][at], self._clouds[k]
        exponents = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        exponents = t - exponents.square_() / self._h
        return float((exponents.logsumexp(-1) - sums[at]).abs().amax()) <= _WRONG

    def _charges(
        self, k: int, t: Tensor, slopes: Tensor | None = None, x: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return what stands at the nodes of cloud k for x exp(t), and the logarithm of its scale.

        Both are of all boxes of the grid, (boxes, p^d) and (boxes,).
        """
        boxes = self._boxes[k]
        slopes = boxes.slopes(t) if slopes is None else slopes
        rest = t - (slopes[boxes.block] * boxes.within).sum(1)
        peak = boxes.peaks(rest)
        weight = (rest - peak.clamp(min=_NONE)[boxes.block]).exp_().mul_(x)
        lift = slopes @ boxes.nodes.T
        top = lift.amax(1)
        count = math.prod(boxes.shape)
        W, scale = t.new_zeros(count, lift.shape[1]), t.new_full((count,), _NONE)
        W[boxes.which] = boxes.spread(weight).mul_(lift.sub_(top[:, None]).exp_())
        scale[boxes.which] = (peak + top).clamp_(min=_NONE)
        return W, scale

    def _convolved(self, k: int, W: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums over nodes of cloud k at those of the other's boxes that hold points.

        Coordinate by coordinate, (boxes, p^d), and the logarithms of their scales, (boxes,).
        """
        source, target = self._boxes[k], self._boxes[1 - k]
        p, d, shape = _NODES, len(source.shape), list(source.shape)
        for axis, size in enumerate(target.shape):
            before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
            held = W.view(before, shape[axis], after, p**axis, p, p ** (d - 1 - axis))
            lines = held.permute(1, 4, 0, 2, 3, 5).reshape(shape[axis], p, before * after, -1)
            scales = scale.view(before, shape[axis], after).transpose(0, 1).flatten(1)
            kernel, top = self._kernel(
                size, shape[axis], float(target.low[axis] - source.low[axis])
            )
            lines, scales = _along(lines, scales, kernel, top)
            held = lines.view(size, p, before, after, p**axis, p ** (d - 1 - axis))
            W = held.permute(2, 0, 3, 4, 1, 5).reshape(-1, p**d)
            scale = scales.view(size, before, after).transpose(0, 1).flatten()
            shape[axis] = size
        return W[target.which], scale[target.which]

    def _kernel(self, size: int, of: int, apart: float) -> tuple[Tensor, Tensor]:
        """Return the kernel between boxes of a line, beside the most it can be, and its logarithm.

        Boxes `size - 1` to `1 - of` further on than others, in this order: (p, boxes p), (boxes,).
        """
        line = self._side * chebyshev(_NODES)
        on = self._side * torch.arange(size - 1, -of, -1, dtype=torch.float64) + apart
        top = -((on.abs() - self._side).clamp_(min=0).square_() / self._h)
        far = on[:, None] + line[:, None, None] - line
        return (-far.square_() / self._h - top[:, None]).exp_().flatten(1), top

    def _gathered(self, k: int, F: Tensor, scale: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        """Return at the points of cloud k a base and values: sums are exp(base) values, (n,)."""
        boxes = self._boxes[k]
        lift = slopes @ boxes.nodes.T
        top = lift.amax(1)
        G = F * lift.sub_(top[:, None]).exp_()
        largest = G.abs().amax(1).clamp_(min=torch.finfo(G.dtype).tiny)
        base = (scale + top + largest.log())[boxes.block]
        base -= (slopes[boxes.block] * boxes.within).sum(1)
        return base, boxes.gather(G.div_(largest[:, None]))


def _along(W: Tensor, scale: Tensor, kernel: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply lines of boxes by the kernel along them.

    Args:
        W: Numbers at nodes, (of, p, lines, others).
        scale: Logarithms of what each box is multiplied by, (of, lines).
        kernel: As of `Gauss._kernel`.
        top: Likewise.

    Returns:
        The same of the boxes that are asked for.
    """
    of, p, lines, others = W.shape
    size = len(top) - of + 1
    out, scales = W.new_empty(size, p, lines, others), scale.new_empty(size, lines)
    step = max(1, _TILE // (of * p * others))
    for start in range(0, lines, step):
        some = slice(start, start + step)
        given, at = W[:, :, some].contiguous(), scale[:, some]
        for i in range(size):
            first = size - 1 - i
            most = at + top[first : first + of, None]
            scales[i, some] = base = most.amax(0)
            part = given * (most - base).exp_()[:, None, :, None]
            across = kernel[:, first * p : (first + of) * p]
            out[i, :, some] = (across @ part.view(of * p, -1)).view(p, -1, others)
    return out, scales


def quicker(trees: tuple[Blocks, Blocks], h: float, lost: float, memory: int) -> bool:
    """Say whether polynomials take less time than the pairs that count, and fit into `memory`.

    Args:
        trees: Both clouds in order.
        h: What squared distances are divided by.
        lost: Logarithm of what may be left out of a row, relative to its sum.
        memory: In bytes.
    """
    rows, columns = trees
    d, side = rows.points.shape[1], _SIDE * math.sqrt(h)
    reach = 2 * math.sqrt(h * (math.log(len(columns)) - lost))
    near = reach + sum((at.high - at.low).mean(0) for at in trees)
    extents = [at.high.amax(0) - at.low.amin(0) for at in trees]
    share = float((near / torch.maximum(*extents).clamp(min=1e-300)).clamp_(max=1.0).prod())
    boxes = [(extent / side).floor() + 1 for extent in extents]
    grids = [float((_NODES * counts).prod()) for counts in boxes]
    n, m = len(rows.order), len(columns.order)
    products = sum(grids) * _NODES * float(torch.maximum(*boxes).sum())
    transform = 2 * _POINT * (n + m) * _NODES**d + _PRODUCT * products
    return transform < _PAIR * share * n * m and 8 * _COPIES * max(grids) <= memory
