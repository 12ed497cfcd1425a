"""The plan times a matrix, and the plan's cost, for a stored cost or for clouds, without the plan.

Each program makes a tile of the plan on chip, uses it and forgets it. One vector is a multiply-add
per entry. A matrix goes through tensor cores like the points do: plan and matrix as fp16 pairs, the
plan scaled by a running maximum so that fp16 holds it, three products, float32 accumulation. With
potentials in float64 everything is float64, and a product is one product.

Bound per entry: one exp2; a stored cost is read once (4 or 2 bytes), clouds cost what they cost in
`point_cloud`; k <= 4 columns take k multiply-adds, more take 3 k of tensor cores, and what is read
of the matrix comes from the L2 cache. Beyond 128 columns the plan is made again for every 128.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .clouds import Clouds, Side, hold, own_cost, pairs, slope, split
from .configs import (
    OPTIONS,
    Layout,
    capability,
    layout,
    log_sum_tile,
    multiprocessors,
    power_of_two,
)
from .near import Live, met
from .point_cloud import Tiles, spans_for, tiles, within
from .tiles import LOG2E, exp2, finite, offsets


# a plan entry at its row's maximum becomes 2^14 in fp16, and 2^-38 of that is still a number
_TOP = tl.constexpr(14.0)
# up to here a multiply-add per column and entry is cheaper than splitting the plan for tensor cores
_FEW = 4


@triton.jit
def _tile(
    rows, columns, strides, batch, i, j, held,
    KIND: tl.constexpr, AXIS: tl.constexpr, DIV: tl.constexpr, D: tl.constexpr,
    CHUNK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Return the entries of a stored cost, (I, J), or what `pairs` makes of two clouds."""
    if KIND == "dense":
        n = rows.size * DIV if AXIS == 0 else rows.size
        m = columns.size * DIV if AXIS == 1 else columns.size
        at = rows.points + batch * strides[0] * DIV + offsets(i, j, strides, AXIS, DIV)
        entries = tl.load(at, mask=(i < n)[:, None] & (j < m)[None, :], other=0.0).to(ACC)
    else:
        entries = pairs(rows, columns, batch, i, j, held, KIND, D, CHUNK, PRECISION)
    return entries


@triton.jit
def _nothing(
    USE: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, K: tl.constexpr, ACC: tl.constexpr
):
    """Return the sums before the first column: (peak, total), or one total for each vector."""
    if USE == "matrix":
        sums = (tl.full([BM], -float("inf"), ACC), tl.zeros([BM, BK], ACC))
    elif USE == "product":
        sums = (tl.zeros([BM, BK], ACC),)  # type: ignore[assignment]
    else:
        sums = ()  # type: ignore[assignment]
        for _ in tl.static_range(K):
            sums = sums + (tl.zeros([BM], ACC),)  # type: ignore[assignment]
    return sums


@triton.jit
def _add_matrix(sums, z, x, x_rest, j, m, k, K: tl.constexpr, ALONG: tl.constexpr):
    """Add 2^z @ x[j] to (peak, total), in units of 2^(peak - 14)."""
    peak, total = sums
    new = tl.maximum(peak, tl.max(z, ALONG))
    top = finite(new)
    e = tl.exp2(z - tl.expand_dims(top - _TOP, ALONG))
    if ALONG == 0:
        e = e.T
    first = e.to(tl.float16)
    rest = (e - first.to(tl.float32)).to(tl.float16)
    at = j.to(tl.int64)[:, None] * K + k[None, :]
    y = tl.load(x + at, mask=(j < m)[:, None], other=0.0)
    y_rest = y
    if x_rest is not None:
        y_rest = tl.load(x_rest + at, mask=(j < m)[:, None], other=0.0)
    total = tl.dot(rest, y, total * tl.exp2(peak - top)[:, None])
    if x_rest is not None:
        total = tl.dot(first, y_rest, total)
    return new, tl.dot(first, y, total)


@triton.jit
def _add_product(sums, e, x, j, m, k, K: tl.constexpr, ALONG: tl.constexpr):
    """Add e @ x[j] in the dtype of both."""
    if ALONG == 0:
        e = e.T
    at = j.to(tl.int64)[:, None] * K + k[None, :]
    y = tl.load(x + at, mask=(j < m)[:, None], other=0.0)
    return (tl.dot(e, y, sums[0], out_dtype=e.dtype),)


@triton.jit
def _add_vectors(sums, e, x, j, m, K: tl.constexpr, ALONG: tl.constexpr):
    """Add e @ x[j] for the K vectors x, each a line of memory."""
    more = ()
    for k in tl.static_range(K):
        x_j = tl.load(x + k * m.to(tl.int64) + j, mask=j < m, other=0.0)
        more = more + (sums[k] + tl.sum(e * tl.expand_dims(x_j, 1 - ALONG), ALONG),)  # type: ignore[assignment]
    return more


@triton.jit
def _apply(  # noqa: C901, PLR0915
    rows, columns, strides, u, v, x, x_rest, x_scale, inv_reg, out, live, k, many, blocks,
    spans, span,
    USE: tl.constexpr, KIND: tl.constexpr, AXIS: tl.constexpr, DIV: tl.constexpr,
    D: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, K: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Use a block of plan rows over one span of columns, or of those that count.

    `USE` is "matrix" for P @ x with x (m, K) as fp16 pairs, "product" with x in float64, "vectors"
    with few columns x (K, m), or "cost" for the row sums of P * C. `KIND` is "dense" or one of
    `Clouds`, whose direct tiles are transposed.
    """
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    i = tl.program_id(0) % blocks * BM + tl.arange(0, BM)
    # the contiguous size comes divided, see configs.Layout
    n = rows.size * DIV if AXIS == 0 else rows.size
    m = columns.size * DIV if AXIS == 1 else columns.size
    ALONG: tl.constexpr = 1 if KIND == "dense" or KIND == "matrix" else 0
    kk = tl.program_id(2) * BK + tl.arange(0, BK)
    x += batch * many * m * K
    if x_rest is not None:
        x_rest += batch * many * m * K
    c = tl.load(inv_reg + batch) * LOG2E
    held = hold(rows, batch, i, KIND, D, CHUNK)
    factor = slope(rows, columns, batch, c, KIND)
    own_i = own_cost(rows, batch, i, c)
    w_i = tl.load(u + batch * n + i, mask=i < n, other=-float("inf")) * LOG2E - own_i
    ACC: tl.constexpr = v.dtype.element_ty
    sums = _nothing(USE, BM, BK, K, ACC)

    block, last = tl.program_id(0), m
    if live is not None:
        block = block * BM // SIZE
        last = tl.load(live.counts + block) * SIZE
        span = tl.cdiv(tl.cdiv(last, spans), BN) * BN
    start = tl.program_id(1) * span
    for j0 in tl.range(start, tl.minimum(start + span, last), BN, num_stages=2):
        j = met(live, block, j0, SIZE) + tl.arange(0, BN)
        own_j = own_cost(columns, batch, j, c)
        w_j = tl.load(v + batch * m + j, mask=j < m, other=-float("inf")) * LOG2E - own_j
        gain = factor * _tile(
            rows, columns, strides, batch, i, j, held,
            KIND, AXIS, DIV, D, CHUNK, PRECISION, ACC,
        )  # fmt: skip
        z = gain + (tl.expand_dims(w_i, ALONG) + tl.expand_dims(w_j, 1 - ALONG))
        if USE == "matrix":
            sums = _add_matrix(sums, z, x, x_rest, j, m, kk, K, ALONG)
        elif USE == "vectors":
            sums = _add_vectors(sums, exp2(z), x, j, m, K, ALONG)
        elif USE == "product":
            sums = _add_product(sums, exp2(z), x, j, m, kk, K, ALONG)
        else:
            e = exp2(z)
            gain -= tl.expand_dims(own_i, ALONG) + tl.expand_dims(own_j, 1 - ALONG)
            # a forbidden pair carries nothing, whatever it would cost
            sums = (sums[0] - tl.sum(tl.where(e > 0, e * gain, 0.0), ALONG),)

    out += ((tl.program_id(1).to(tl.int64) * (tl.num_programs(0) // blocks) + batch) * n + i) * k
    if USE == "matrix":
        scale = tl.load(x_scale + batch * many * K + kk)
        total = sums[1] * tl.exp2(finite(sums[0]) - _TOP)[:, None] * scale[None, :]
        tl.store(out[:, None] + kk[None, :], total, mask=(i < n)[:, None] & (kk < k)[None, :])
    elif USE == "product":
        inside = (i < n)[:, None] & (kk < k)[None, :]
        tl.store(out[:, None] + kk[None, :], sums[0], mask=inside)
    elif USE == "vectors":
        for column in tl.static_range(K):
            tl.store(out + column, sums[column], mask=i < n)
    else:
        tl.store(out, sums[0] / c, mask=i < n)


def _stored(C: Tensor) -> tuple[Clouds, Layout]:
    """Return a stored cost in the form of two clouds without coordinates, and how it lies."""
    where = layout(C)
    n, m = C.shape[1:]
    rows = Side(C, None, None, None, n // where.div if where.axis == 0 else n, 0, 0, 0)
    columns = Side(C, None, None, None, m // where.div if where.axis == 1 else m, 0, 0, 0)
    return Clouds(rows, columns, "dense", "ieee", 1, C.shape[0]), where


def _blocks(cost: Tensor | Clouds, use: str, device: torch.device, itemsize: int) -> Tiles:
    """Return the block sizes; a matrix takes registers that rows of a sum do not."""
    BN = 64 if capability(device) >= 9 else 32
    if use == "product":
        width = 1 if isinstance(cost, Tensor) else min(cost.width, 32)
        return Tiles(32, 32, width, 4, 2)
    if isinstance(cost, Tensor):
        if use == "matrix":
            return Tiles(64, BN, 1, 4, 2)
        n, m = cost.shape[1:]
        BM, width, warps = log_sum_tile(layout(cost).axis, n, m, itemsize)
        return Tiles(BM, width, 1, warps, 16)
    if use != "matrix":
        return tiles(cost, device)
    if cost.kind != "matrix":
        return Tiles(128, 32, cost.width, 4, 2)
    return Tiles(64, BN, cost.width if cost.width <= 64 else 32, 4, 2)


def _launch(
    cost: Tensor | Clouds, u: Tensor, v: Tensor, inv_reg: Tensor, use: str, x: Tensor, k: int,
    x_rest: Tensor | None = None, x_scale: Tensor | None = None, live: Live | None = None,
) -> Tensor:  # fmt: skip
    """Return (B, n, k), summed over the spans that the columns were cut into."""
    batch, n, m = v.shape[0], u.shape[1], v.shape[1]
    tile = _blocks(cost, use, v.device, v.itemsize)
    BM, BN, CHUNK, warps, slots = tile if live is None else within(tile, live.size)
    clouds, where = _stored(cost) if isinstance(cost, Tensor) else (cost, Layout(-1, 1, (0, 0, 0)))
    K, turns, BK = k, 1, 1
    if use in ("matrix", "product"):
        K = x.shape[-1]
        most = 128 if capability(v.device) >= 9 else 64
        BK = min(K, 64 if use == "product" else most)
        turns = K // BK
    blocks = triton.cdiv(n, BM)
    slots = slots * multiprocessors(v.device)
    spans = spans_for(batch * blocks * turns, triton.cdiv(m, BN), slots)
    span = triton.cdiv(triton.cdiv(m, spans), BN) * BN
    spans = triton.cdiv(m, span) if live is None else spans
    out = torch.empty((spans, batch, n, k), device=v.device, dtype=v.dtype)
    _apply[batch * blocks, spans, turns](
        clouds.rows, clouds.columns, where.strides, u.contiguous(), v.contiguous(), x, x_rest,
        x_scale, inv_reg, out, live, k, int(x.shape[0] > 1), blocks, spans, span,
        USE=use, KIND=clouds.kind, AXIS=where.axis, DIV=where.div, D=clouds.width, CHUNK=CHUNK,
        PRECISION=clouds.precision, BM=BM, BN=BN, BK=BK, K=K,
        SIZE=0 if live is None else live.size, num_warps=warps, **OPTIONS,
    )  # fmt: skip
    return out[0] if spans == 1 else out.sum(0)


def apply(
    cost: Tensor | Clouds, u: Tensor, v: Tensor, x: Tensor, inv_reg: Tensor,
    live: Live | None = None,
) -> Tensor:  # fmt: skip
    """Return P @ x with P_ij = exp(u_i + v_j - C_ij / reg), shape (B, n, k), in u's dtype.

    The transpose is `apply(cost.mT, v, u, x, inv_reg)`, or `cost.swapped()` for clouds.

    Args:
        cost: Stored cost (B or 1, n, m), any strides and floating dtype; or clouds.
        u: Row potential (B, n), float32 or float64, in which everything is computed; -inf where the
            weight is zero.
        v: Column potential (B, m); -inf where the weight is zero.
        x: What the plan multiplies, (B or 1, m, k), any floating dtype.
        inv_reg: 1 / reg of each problem (B,).
        live: What counts of clouds in order; None if all does.
    """
    k = x.shape[-1]
    if k <= _FEW:
        return _launch(cost, u, v, inv_reg, "vectors", x.to(u.dtype).mT.contiguous(), k, live=live)
    width = power_of_two(k) if k <= 128 else triton.cdiv(k, 128) * 128
    if u.dtype == torch.float64:
        whole = torch.nn.functional.pad(x.double(), (0, width - k)).contiguous()
        return _launch(cost, u, v, inv_reg, "product", whole, k, live=live)
    exact = x.dtype in (torch.float16, torch.bfloat16)
    first, rest, scale = split(x.float(), (1,), width, exact)
    scale = torch.nn.functional.pad(scale, (0, width - k))
    return _launch(cost, u, v, inv_reg, "matrix", first, k, rest, scale, live)


def linear(
    cost: Tensor | Clouds, u: Tensor, v: Tensor, inv_reg: Tensor, live: Live | None = None
) -> Tensor:  # fmt: skip
    """Return what each row of the plan pays, sum_j P_ij C_ij, shape (B, n); they sum to <P, C>."""
    return _launch(cost, u, v, inv_reg, "cost", v, 1, live=live)[..., 0]
