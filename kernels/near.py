"""Which tiles of two clouds count: the device judges what no pair of a tile can carry.

Points lie in the order of a tree, so many of them a block. On each block a potential lies below an
affine function, as close as it is smooth there. With two of those the exponent u_i + v_j - |x_i -
y_j|^2 / reg of a pair is concave, and a sum over coordinates, so that its largest value over two
boxes is found coordinate by coordinate: on an edge of a rectangle it is a parabola, and from inside
it rises along x = y to an edge. A tile whose largest exponent, beside the sums of its rows, is
below a bar goes into no list. What all of those come to at most is told, and who sums the rows
finds out whether it was too much.

Bound: one exp2 and 60 d + 20 instructions for each pair of blocks, beside the 16384 pairs of its
points: nothing.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .clouds import Side
from .configs import OPTIONS, power_of_two
from .launch import launch
from .tiles import LN2, LOG2E, exp2, finite


# blocks of the other side that are judged together
_CHUNK = 128
# what all tiles below a bar come to beside the largest, in logarithms, unless they come to more
_SHELL = 3.0


class Boxes(NamedTuple):
    """One cloud in blocks of neighbours.

    Attributes:
        order: Where each point stands among the caller's, (n,).
        low: The corner of each block's box, a line per coordinate, (d, k).
        high: The opposite corner, (d, k).
        many: How many blocks there are, k.
        size: Points of every block but the last, a power of two.
    """

    order: Tensor
    low: Tensor
    high: Tensor
    many: int
    size: int


class Affine(NamedTuple):
    """A function above a potential on each block: level + <slope, point>.

    Attributes:
        level: (k,); -inf where no point has weight, inf where a potential is no number.
        slope: (d, k).
    """

    level: Tensor
    slope: Tensor


class Live(NamedTuple):
    """Which blocks of columns count for which blocks of rows.

    Attributes:
        blocks: A list per block of rows, (k, l), int32; no more is filled than counts.
        counts: How many of them there are, (k,), int32.
        cut: Logarithm of what all others come to at most, beside the sum of a row, (k,).
        pitch: Room of a list, l.
        lost: Logarithm of what they may come to.
        size: Points of every block but the last.
    """

    blocks: Tensor
    counts: Tensor
    cut: Tensor
    pitch: int
    lost: float
    size: int


@triton.jit
def met(live, block, p, SIZE: tl.constexpr):
    """Return which column is met at place p along what counts for a block of rows."""
    j = p
    if live is not None:
        j = tl.load(live.blocks + block.to(tl.int64) * live.pitch + p // SIZE) * SIZE + p % SIZE
    return j


@triton.jit
def _fit(side, t, i, block, count, into, D: tl.constexpr, DP: tl.constexpr):
    """Lay an affine function above numbers t of the points i; -inf lies below all.

    As close as least squares are, by conjugate gradients; whatever they find, it is above.
    """
    k = tl.arange(0, DP)
    inside = i < side.size
    pitch = tl.cdiv(side.size, 16) * 16
    at = side.points + k[:, None] * pitch + i[None, :]
    x = tl.load(at, mask=(k < D)[:, None] & inside[None, :], other=0.0)
    known = inside & (t != -float("inf"))
    odd = tl.max((known & ~(tl.abs(t) < float("inf"))).to(tl.int32), 0) > 0
    number = tl.maximum(tl.sum(known.to(x.dtype), 0), 1.0)
    y = tl.where(known & ~odd, t, 0.0)
    x_mean = tl.sum(tl.where(known[None, :], x, 0.0), 1) / number
    dx = tl.where(known[None, :], x - x_mean[:, None], 0.0)
    rest = tl.where(known, y - tl.sum(y, 0) / number, 0.0)
    slope = tl.zeros([DP], x.dtype)
    g = tl.sum(dx * rest[None, :], 1)
    step = g
    square = tl.sum(g * g, 0)
    for _ in tl.static_range(D):
        q = tl.sum(dx * step[:, None], 0)
        curved = tl.sum(q * q, 0)
        some = (curved > 0) & (square > 0)
        far = tl.where(some, square / tl.where(some, curved, 1.0), 0.0)
        slope += far * step
        rest -= far * q
        g = tl.sum(dx * rest[None, :], 1)
        after = tl.sum(g * g, 0)
        step = g + tl.where(some, after / tl.where(some, square, 1.0), 0.0) * step
        square = after
    # what overflowed is no slope
    slope = tl.where(tl.abs(slope) < float("inf"), slope, 0.0)
    above = tl.where(known, y - tl.sum(dx * slope[:, None], 0), -float("inf"))
    level = tl.where(odd, float("inf"), tl.max(above, 0) - tl.sum(x_mean * slope, 0))
    tl.store(into.level + block, level)
    tl.store(into.slope + k * count + block, slope, mask=k < D)


@triton.jit
def _take(
    side, boxes, given, out, into, D: tl.constexpr, DP: tl.constexpr, SIZE: tl.constexpr
):  # fmt: skip
    """Bring a potential into order, and lay a function above it."""
    block = tl.program_id(0)
    i = block * SIZE + tl.arange(0, SIZE)
    inside = i < side.size
    at = tl.load(boxes.order + i, mask=inside, other=0)
    t = tl.load(given + at, mask=inside, other=-float("inf"))
    tl.store(out + i, t, mask=inside)
    _fit(side, t, i, block, boxes.many, into, D, DP)


@triton.jit
def _settle(
    side, boxes, sums, before, live, base, weight, kappa, told, moved, left, into, up,
    D: tl.constexpr, DP: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Lay a function above minus what sums are known to be, and answer them.

    With weights the answer is a potential, told in the caller's order, and in this one with a
    function above it; with a base it is that and the sum.
    """
    block = tl.program_id(0)
    i = block * SIZE + tl.arange(0, SIZE)
    inside = i < side.size
    total = tl.load(sums + i, mask=inside, other=float("inf"))
    _fit(side, -total, i, block, boxes.many, into, D, DP)
    if live is not None:
        # a row that lost more was summed over all columns
        fall = tl.load(before + i, mask=inside, other=-float("inf")) - total
        fall += tl.load(live.cut + block)
        tl.store(left + block, tl.max(tl.where(fall <= live.lost, fall, -float("inf")), 0))
    at = tl.load(boxes.order + i, mask=inside, other=0)
    if base is not None:
        t = tl.load(base + i, mask=inside, other=-float("inf"))
        tl.store(told + at, tl.where(t == -float("inf"), t, t + total), mask=inside)
    if weight is not None:
        a = tl.load(weight + at, mask=inside, other=0.0)
        if kappa is not None:
            part = tl.load(kappa)
            # a free row keeps its weight, whatever its sum
            total = tl.where(part > 0, part * total, 0.0)
        u = tl.log2(tl.where(a > 0, a, 1.0)) * LN2 - total
        u = tl.where(inside & (a > 0), u, -float("inf"))
        tl.store(told + at, u, mask=inside)
        tl.store(moved + i, u, mask=inside)
        _fit(side, u, i, block, boxes.many, up, D, DP)


@triton.jit
def _top(end, rise, low, high, slope, half, inv_reg):
    """Return the most of rise end + slope z - (end - z)^2 / reg along an edge, low <= z <= high."""
    z = tl.minimum(tl.maximum(end + slope * half, low), high)
    return rise * end + slope * z - (end - z) * (end - z) * inv_reg


@triton.jit
def _most(mine, own, other, function, block, c, half, inv_reg, D: tl.constexpr):
    """Return the largest exponent of any pair of a block and the blocks c."""
    inside = c < other.many
    z = tl.load(function.level + c, mask=inside, other=-float("inf"))
    z += tl.load(own.level + block)
    for k in tl.static_range(D):
        x = tl.load(mine.low + k * mine.many + block)
        x_high = tl.load(mine.high + k * mine.many + block)
        a = tl.load(own.slope + k * mine.many + block)
        at = k * other.many + c
        y = tl.load(other.low + at, mask=inside, other=0.0)
        y_high = tl.load(other.high + at, mask=inside, other=0.0)
        b = tl.load(function.slope + at, mask=inside, other=0.0)
        best = _top(x, a, y, y_high, b, half, inv_reg)
        best = tl.maximum(best, _top(x_high, a, y, y_high, b, half, inv_reg))
        best = tl.maximum(best, _top(y, b, x, x_high, a, half, inv_reg))
        z += tl.maximum(best, _top(y_high, b, x, x_high, a, half, inv_reg))
    return z


@triton.jit
def _listed(
    mine, own, other, function, block, inv_reg, bar, live, crowd,
    D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """List the blocks above a bar; return how many, and log2 of what the others come to."""
    found, half = 0, 0.5 / inv_reg
    peak = tl.full([CHUNK], -float("inf"), own.level.dtype.element_ty)
    total = tl.zeros([CHUNK], own.level.dtype.element_ty)
    for start in range(0, other.many, CHUNK):
        c = start + tl.arange(0, CHUNK)
        z = _most(mine, own, other, function, block, c, half, inv_reg, D)
        z = (z + crowd) * LOG2E
        # what is no number counts
        counts = (c < other.many) & ~(z <= bar)
        place = found + tl.cumsum(counts.to(tl.int32), 0) - 1
        tl.store(live.blocks + block.to(tl.int64) * live.pitch + place, c, mask=counts)
        found += tl.sum(counts.to(tl.int32), 0)
        z = tl.where(counts, -float("inf"), z)
        new = tl.maximum(peak, z)
        total = total * exp2(peak - finite(new)) + exp2(z - finite(new))
        peak = new
    most = tl.max(peak, 0)
    return found, finite(most) + tl.log2(tl.sum(total * exp2(peak - finite(most)), 0))


@triton.jit
def _judge(
    mine, own, other, function, inv_reg, live, aim, hopeful, sure, crowd,
    D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """List what counts for a block of rows.

    Bars are logarithms to the base of two: one that is hoped to be enough, and one that is.
    """
    block = tl.program_id(0)
    c = tl.load(inv_reg)
    found, cut = _listed(mine, own, other, function, block, c, hopeful, live, crowd, D, CHUNK)
    if cut > aim:
        found, cut = _listed(mine, own, other, function, block, c, sure, live, crowd, D, CHUNK)
    tl.store(live.counts + block, found)
    tl.store(live.cut + block, cut * LN2)


class Fitted(NamedTuple):
    """Numbers of points in order, and what was laid above them, or above minus them.

    Attributes:
        values: (n,).
        above: The function.
    """

    values: Tensor
    above: Affine


class Settled(NamedTuple):
    """What follows from sums over what counts.

    Attributes:
        told: The answer, in the caller's order, (n,); the sums in order if there is none.
        moved: The potential among these, in order; None if the answer is none.
        sums: The sums, and what lies above minus them.
        left: Logarithm of what was left out at most, beside a row's sum, (k,).
    """

    told: Tensor
    moved: Fitted | None
    sums: Fitted
    left: Tensor


def take(side: Side, boxes: Boxes, given: Tensor) -> Fitted:
    """Return a potential (n,), in the caller's order, as kernels here take it."""
    out = Fitted(torch.empty_like(given), _affine(side, boxes))
    launch(_take, boxes.many, side, boxes, given, *out, **_constants(boxes, out.above))
    return out


def known(side: Side, boxes: Boxes, sums: Tensor) -> Fitted:
    """Return logarithms of sums (n,), in order, that are known or below those that will be."""
    above = _affine(side, boxes)
    launch(
        _settle, boxes.many, side, boxes, sums, *(None,) * 8, above, None,
        **_constants(boxes, above),
    )  # fmt: skip
    return Fitted(sums, above)


def settle(
    side: Side, boxes: Boxes, sums: Tensor, before: Tensor, live: Live, *,
    base: Tensor | None = None, weight: Tensor | None = None, kappa: Tensor | None = None,
) -> Settled:  # fmt: skip
    """Answer sums over what counts.

    Args:
        side: The points that were summed for, of few coordinates.
        boxes: Their blocks.
        sums: Logarithms of the sums, in order, (n,).
        before: What they were thought to be, (n,).
        live: What they were taken over.
        base: A potential in order, (n,): the answer is that and the sum.
        weight: Weights in the caller's order, (n,): the answer is the potential that meets them.
        kappa: Elasticity of relaxed rows, (1,); None for exact marginals, 0 for free ones.
    """
    left, into = torch.empty_like(live.cut), _affine(side, boxes)
    told = sums if base is None and weight is None else torch.empty_like(sums)
    moved = None if weight is None else Fitted(torch.empty_like(sums), _affine(side, boxes))
    launch(
        _settle, boxes.many, side, boxes, sums, before, live, base, weight, kappa, told,
        *((None, left, into, None) if moved is None else (moved.values, left, into, moved.above)),
        **_constants(boxes, into),
    )  # fmt: skip
    return Settled(told, moved, Fitted(sums, into), left)


def judge(
    rows: tuple[Boxes, Affine], columns: tuple[Boxes, Affine], inv_reg: Tensor, lost: float,
    margin: float = 0.0,
) -> Live:  # fmt: skip
    """Return which blocks of columns count for which blocks of rows.

    Args:
        rows: Blocks, and what lies above minus the logarithms of their sums.
        columns: Blocks, and what lies above their potential.
        inv_reg: 1 / reg, (1,).
        lost: Logarithm of what may be left out, beside the sum of a row.
        margin: By how much sums may turn out to be less.
    """
    k, most = rows[0].many, columns[0].many
    level, slope = rows[1]
    counts = torch.empty(k, dtype=torch.int32, device=level.device)
    blocks = torch.empty((k, most), dtype=torch.int32, device=level.device)
    live = Live(blocks, counts, torch.empty_like(level), most, lost, rows[0].size)
    aim, unit = lost - margin, 1 / math.log(2)
    launch(
        _judge, k, *rows, *columns, inv_reg, live, aim * unit, (aim - _SHELL) * unit,
        (aim - math.log(most)) * unit, math.log(columns[0].size), D=len(slope), CHUNK=_CHUNK,
        num_warps=_CHUNK // 32, **OPTIONS,
    )  # fmt: skip
    return live


def _affine(side: Side, boxes: Boxes) -> Affine:
    shape = len(boxes.low), boxes.many
    like = side.points
    return Affine(like.new_empty(shape[1]), like.new_empty(shape))


def _constants(boxes: Boxes, above: Affine) -> dict[str, object]:
    """Return what is constant where blocks are fitted: points on chip, in lines."""
    width = len(above.slope)
    held = boxes.size * power_of_two(width, 1) * above.slope.itemsize
    return {
        "D": width,
        "DP": power_of_two(width, 1),
        "SIZE": boxes.size,
        "num_warps": max(1, min(8, held >> 11)),
        **OPTIONS,
    }
