"""Two clouds of points as the kernels read them: placed near the origin, scaled, split into fp16.

Every metric is one formula, `C_ij = norm_i + norm_j - <x_i, y_j>`, with the factor of the product
folded into the scales, and a row of `METRICS`. Few coordinates may skip it: squared differences
keep the cost of close points exact to its last digits, for less than the exponential beside.
Distances always do: the root of one would double the digits that a product loses, and differences
are not centred either, for points of one cluster would lose digits to another one far away. In
float64 nothing is split, and a product is one product.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


PRECISIONS = ("fp16x3", "tf32", "float64")

# up to here plain multiply-adds hide behind the exponential; beyond it tensor cores win
MAX_DIRECT = 8
# and up to here a loop over coordinates is unrolled
UNROLLED = tl.constexpr(8)
# the longest rows of points that stay on chip while columns stream past
MAX_RESIDENT = 128
# fp16 ends at 65504: the largest coordinate lands on 2^12, and what hi leaves to lo stays normal
_TOP = 12


class Side(NamedTuple):
    """One cloud, in the order a kernel reads it.

    Attributes:
        points: Scaled coordinates (1 or B, n, D) in fp16, fp32 or fp64, padded with zeros to D; for
            direct kinds (1 or B, d, n padded to 16) in fp32 or fp64.
        rest: What fp16 rounding took from `points`, same shape, or None where it took nothing.
        norm: The part of the cost that is this point's own, (1 or B, n), or None for nothing.
        scale: What a coordinate must be multiplied with, (1 or B,), or None for one.
        size: Number of points.
        pitch: Elements of `points` from one problem to the next; 0 if they share the cloud.
        step: Elements of `norm` from one problem to the next.
        alone: Elements of `scale` from one problem to the next.
        ends: After how many points each problem has no more with weight, at steps of two (B,), in
            int32; None if all have all.
    """

    points: Tensor
    rest: Tensor | None
    norm: Tensor | None
    scale: Tensor | None
    size: int
    pitch: int
    step: int
    alone: int
    ends: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Clouds:
    """What the point-cloud kernels take: build it once per problem with `place`, whatever reg is.

    Attributes:
        rows: The resident side, one result per point.
        columns: The side that streams past.
        kind: "difference", "distance", "absolute" or "product" by coordinates, or "matrix" on
            tensor cores.
        precision: How a product of fp32 numbers rounds, "ieee" or "tf32".
        width: Coordinates per stored point.
        batch: Number of clouds, 1 if all problems share them.
    """

    rows: Side
    columns: Side
    kind: str
    precision: str
    width: int
    batch: int

    @property
    def double(self) -> bool:
        """Whether everything is computed in float64."""
        return self.rows.points.dtype == torch.float64

    def ended(self, lengths: Tensor | None) -> "Clouds":
        """Return the clouds of problems that have so many first points of each side, (B, 2)."""
        ends = (None, None) if lengths is None else lengths.unbind(-1)
        rows, columns = self.rows._replace(ends=ends[0]), self.columns._replace(ends=ends[1])
        return replace(self, rows=rows, columns=columns)

    def swapped(self) -> "Clouds":
        """Return the transposed problem."""
        return replace(self, rows=self.columns, columns=self.rows)


@dataclass(frozen=True)
class Metric:
    """How the kernels meet a metric.

    Attributes:
        place: Moves both clouds, given their dtype before it was widened; None leaves them.
        few: How clouds of few coordinates are met: by their "difference", squared, by "distance",
            which is its root, by the "absolute" differences, or by their "product".
        factor: What the product of two points is multiplied with.
        constant: The part of every cost that is a point's own, or None for nothing.
        norm: What is a point's own beyond few coordinates, (B, n) in fp64, if not that constant.
        most: How many coordinates are few.
    """

    place: Callable[[Tensor, Tensor, torch.dtype], tuple[Tensor, Tensor]] | None
    few: str
    factor: float = 1.0
    constant: float | None = None
    norm: Callable[[Tensor], Tensor] | None = None
    most: float = MAX_DIRECT


def _normalised(x: Tensor, y: Tensor, given: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.nn.functional.normalize(x, dim=-1), torch.nn.functional.normalize(y, dim=-1)


def _centred(x: Tensor, y: Tensor, given: torch.dtype) -> tuple[Tensor, Tensor]:
    # a cloud shared by problems can have one centre only
    over = (-2,) if x.shape[0] == y.shape[0] else (0, -2)
    centre = (x.mean(over, keepdim=True) + y.mean(over, keepdim=True)) / 2
    centre = centre.to(given).to(x.dtype)
    return x - centre, y - centre


def _square(x: Tensor) -> Tensor:
    return x.square().sum(-1, dtype=torch.float64)


METRICS = {
    "sqeuclidean": Metric(_centred, "difference", factor=2.0, norm=_square),
    "euclidean": Metric(None, "distance", most=math.inf),
    "manhattan": Metric(None, "absolute", most=math.inf),
    "dot": Metric(None, "product"),
    "cosine": Metric(_normalised, "product", constant=0.5),
}


def place(x: Tensor, y: Tensor, *, metric: str, precision: str = "fp16x3") -> Clouds:
    """Return the clouds in the kernels' form; O((n + m) d) memory, no synchronisation.

    Squared distances ignore the origin and rounding does not, so those clouds are centred, on a
    point of the input's own grid: 16-bit inputs then lose nothing to the shift.

    Args:
        x: Source points, shape (1 or B, n, d).
        y: Target points, shape (1 or B, m, d).
        metric: A name in `METRICS`.
        precision: "fp16x3" splits a coordinate into two fp16 numbers and takes three products,
            22 bits in all; "tf32" takes one product of 11 bits. Up to 8 coordinates are computed
            in fp32 whatever is asked of these, as distances are, and fp16 or bf16 points under
            "dot" by one product that rounds nothing but its sum. "float64" is for potentials in
            float64, and computes everything in it.

    Raises:
        ValueError: If the metric or the precision is unknown.
    """
    for name, value, valid in (("metric", metric, METRICS), ("precision", precision, PRECISIONS)):
        if value not in valid:
            raise ValueError(f"{name} must be one of {', '.join(valid)}, got {value!r}")
    served, d = METRICS[metric], x.shape[-1]
    exact = served.place is None and x.dtype in (torch.float16, torch.bfloat16)
    double = precision == "float64"
    x, y = _placed(x, y, served, double)
    batch = max(x.shape[0], y.shape[0])
    if d <= served.most:
        work = torch.float64 if double else torch.float32
        rows, columns = (direct(t.to(work), served.constant) for t in (x, y))
        return Clouds(rows, columns, served.few, "ieee", d, batch)
    width = max(16, triton.next_power_of_2(d)) if d <= MAX_RESIDENT else -(-d // 64) * 64
    sides = ((x, served.factor), (y, 1.0))
    if double:
        rows, columns = (_double(t, served, width, factor) for t, factor in sides)
        return Clouds(rows, columns, "matrix", "ieee", width, batch)
    if precision == "tf32" and not exact:
        rows, columns = (_whole(t, served, width, factor) for t, factor in sides)
        return Clouds(rows, columns, "matrix", "tf32", width, batch)
    rows, columns = (_split(t, served, width, factor, exact) for t, factor in sides)
    return Clouds(rows, columns, "matrix", "ieee", width, batch)


def last(clouds: Clouds, rows: int) -> Clouds:
    """Return the last row points and all columns, of clouds for tensor cores."""
    assert clouds.kind == "matrix", "clouds of few coordinates lie by coordinates"
    side = clouds.rows
    rest = None if side.rest is None else side.rest[:, -rows:]
    norm = None if side.norm is None else side.norm[:, -rows:]
    kept = side._replace(points=side.points[:, -rows:], rest=rest, norm=norm, size=rows)
    return replace(clouds, rows=kept)


def _placed(x: Tensor, y: Tensor, metric: Metric, double: bool) -> tuple[Tensor, Tensor]:
    """Return the clouds in fp32 or fp64, where the metric has them."""
    given, double = x.dtype, double or x.dtype == torch.float64
    work = torch.float64 if double else torch.float32
    x, y = x.to(work), y.to(work)
    return (x, y) if metric.place is None else metric.place(x, y, given)


def direct(x: Tensor, norm: float | None = None) -> Side:
    """Return a cloud (B, n, d) of few coordinates, one contiguous line per coordinate."""
    batch, n, d = x.shape
    points = x.new_zeros((batch, d, -(-n // 16) * 16))
    points[..., :n] = x.mT
    own = None if norm is None else x.new_full((1, n), norm)
    return Side(points, None, own, None, n, points.stride(0) * (batch > 1), 0, 0)


def _norm(x: Tensor, metric: Metric, dtype: torch.dtype = torch.float32) -> Tensor | None:
    """Return the part of the cost that belongs to one point alone."""
    if metric.norm is not None:
        return metric.norm(x).to(dtype)
    same = metric.constant
    return None if same is None else x.new_full(x.shape[:2], same, dtype=dtype)


def _side(
    coordinates: tuple[Tensor, Tensor | None], norm: Tensor | None, scale: Tensor | None
) -> Side:
    points, rest = coordinates
    batch, n, _ = points.shape
    many = int(batch > 1)
    return Side(points, rest, norm, scale, n, points.stride(0) * many, n * many, many)


def _double(x: Tensor, metric: Metric, width: int, factor: float) -> Side:
    """Return a cloud of fp64 coordinates."""
    points = torch.nn.functional.pad(x * factor, (0, width - x.shape[-1]))
    return _side((points.contiguous(), None), _norm(x, metric, torch.float64), None)


def _whole(x: Tensor, metric: Metric, width: int, factor: float) -> Side:
    """Return a cloud of fp32 coordinates for one matrix product."""
    points = torch.nn.functional.pad(x.float(), (0, width - x.shape[-1]))
    scale = torch.full(x.shape[:1], factor, dtype=torch.float32, device=x.device)
    return _side((points.contiguous(), None), _norm(x, metric), scale)


def _split(x: Tensor, metric: Metric, width: int, factor: float, exact: bool) -> Side:
    """Return a cloud for three fp16 products, or for one where fp16 holds every number."""
    points, rest, scale = split(x, (1, 2), width, exact)
    return _side((points, rest), _norm(x, metric), scale[:, 0, 0] * factor)


def split(
    x: Tensor, over: tuple[int, ...], width: int, exact: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return fp16 numbers, the fp16 numbers they miss, and the scale of both.

    Args:
        x: Shape (B, n, d), fp32 or fp64.
        over: Axes that share a scale, a power of two.
        width: Size of the last axis of the result, filled with zeros.
        exact: Whether the first part alone holds every number, so that the second is None.
    """
    _, exponent = torch.frexp(x.abs().amax(over, keepdim=True).float().clamp(2.0**-60, 2.0**60))
    scaled = torch.nn.functional.pad(torch.ldexp(x, _TOP - exponent), (0, width - x.shape[-1]))
    first = scaled.to(torch.float16)
    rest = None if exact else (scaled - first).to(torch.float16)
    return first, rest, torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent - _TOP)


@triton.jit
def slope(rows, columns, batch, c, KIND: tl.constexpr):
    """Return the factor of a stored pair in the exponent, c = log2(e) / reg."""
    factor = c if KIND == "product" or KIND == "matrix" else -c
    if rows.scale is not None:
        factor *= tl.load(rows.scale + batch * rows.alone)
        factor *= tl.load(columns.scale + batch * columns.alone)
    return factor


@triton.jit
def own_cost(side, batch, i, c):
    """Return c * norm for the points i of one side, (I,)."""
    cost = tl.zeros(i.shape, c.dtype)
    if side.norm is not None:
        cost += c * tl.load(side.norm + batch * side.step + i, mask=i < side.size, other=0.0)
    return cost


@triton.jit
def line(side, batch, i, k):
    """Return coordinate k of points i of a direct cloud, (I,)."""
    pitch = tl.cdiv(side.size, 16) * 16
    at = side.points + batch * side.pitch + k * pitch + i
    return tl.load(at, mask=i < side.size, other=0.0)


@triton.jit
def block(points, side, batch, i, k, D: tl.constexpr):
    """Return coordinates k of points i, (I, K)."""
    at = points + batch * side.pitch + i.to(tl.int64)[:, None] * D + k[None, :]
    return tl.load(at, mask=(i < side.size)[:, None], other=0.0)


@triton.jit
def parts(side, batch, i, k, D: tl.constexpr):
    """Return both fp16 parts of coordinates k of points i; twice the same where there is one."""
    first = block(side.points, side, batch, i, k, D)
    rest = first
    if side.rest is not None:
        rest = block(side.rest, side, batch, i, k, D)
    return first, rest


@triton.jit
def multiply(x, x_rest, y, y_rest, total, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """Add x @ y; split numbers take three products, the small ones first."""
    if SPLIT:
        total = tl.dot(x_rest, y, total)
        total = tl.dot(x, y_rest, total)
        total = tl.dot(x, y, total)
    else:
        total = tl.dot(x, y, total, input_precision=PRECISION, out_dtype=total.dtype)
    return total


@triton.jit
def hold(rows, batch, i, KIND: tl.constexpr, D: tl.constexpr, CHUNK: tl.constexpr):
    """Return the row points to keep on chip, or a placeholder where they are too long."""
    held = i, i
    if KIND == "matrix" and D == CHUNK:
        held = parts(rows, batch, i, tl.arange(0, D), D)
    return held


@triton.jit
def _coordinate(rows, columns, batch, i, j, k, KIND: tl.constexpr):
    """Return what coordinate k adds to a pair, (J, I)."""
    x = line(rows, batch, i, k)[None, :]
    y = line(columns, batch, j, k)[:, None]
    if KIND == "product":
        found = x * y
    elif KIND == "absolute":
        found = tl.abs(x - y)
    else:
        found = (x - y) * (x - y)
    return found


@triton.jit
def pairs(
    rows, columns, batch, i, j, held,
    KIND: tl.constexpr, D: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return <x_i, y_j>, or |x_i - y_j|, squared for the kind "difference", before scales.

    The tile is (I, J) from tensor cores. Direct kinds make it (J, I): lanes lie along its last
    axis, so a thread owns whole rows and sums them without asking its neighbours.
    """
    WIDE: tl.constexpr = rows.points.dtype.element_ty == tl.float64
    ACC: tl.constexpr = tl.float64 if WIDE else tl.float32
    if KIND == "matrix":
        total = tl.zeros([i.shape[0], j.shape[0]], ACC)
        SPLIT: tl.constexpr = rows.rest is not None
        if D == CHUNK:
            y, y_rest = parts(columns, batch, j, tl.arange(0, D), D)
            total = multiply(held[0], held[1], y.T, y_rest.T, total, SPLIT, PRECISION)
        else:
            for k0 in range(0, D, CHUNK):
                k = k0 + tl.arange(0, CHUNK)
                x, x_rest = parts(rows, batch, i, k, D)
                y, y_rest = parts(columns, batch, j, k, D)
                total = multiply(x, x_rest, y.T, y_rest.T, total, SPLIT, PRECISION)
    else:
        total = tl.zeros([j.shape[0], i.shape[0]], ACC)
        if D <= UNROLLED:
            for k in tl.static_range(D):
                total += _coordinate(rows, columns, batch, i, j, k, KIND)
        else:
            for k in range(D):
                total += _coordinate(rows, columns, batch, i, j, k, KIND)
        if KIND == "distance":
            total = tl.sqrt(total)
    return total
