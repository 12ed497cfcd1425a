"""The plan times a matrix, and the plan's cost, for a stored cost or for clouds, without the plan.

Each program makes a tile of the plan on chip, uses it and forgets it. One vector is a multiply-add
per entry. A matrix goes through tensor cores like the points do: plan and matrix as fp16 pairs, the
plan scaled by a running maximum so that fp16 holds it, three products, float32 accumulation.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .clouds import Clouds, hold, multiply, own_cost, pairs, place, slope, split
from .configs import OPTIONS, Bound, Layout, layout, log_sum_tile, multiprocessors, power_of_two
from .point_cloud import Tiles, spans_for, tiles
from .tiles import LOG2E, finite, offsets


# a plan entry at its row's maximum becomes 2^14 in fp16, and 2^-38 of that is still a number
_TOP = tl.constexpr(14.0)
# columns of the result that one program holds
_MAX_K = 128


@triton.jit
def _accumulate(x, x_rest, j, m, k, K: tl.constexpr, e, total):
    """Add e @ x[j] for a tile of the plan e (I, J), split into fp16 here."""
    at = j.to(tl.int64)[:, None] * K + k[None, :]
    inside = (j < m)[:, None]
    first = e.to(tl.float16)
    rest = (e - first.to(tl.float32)).to(tl.float16)
    b = tl.load(x + at, mask=inside, other=0.0)
    total = tl.dot(rest, b, total)
    if x_rest is not None:
        total = tl.dot(first, tl.load(x_rest + at, mask=inside, other=0.0), total)
    return tl.dot(first, b, total)


@triton.jit
def _apply(
    C, strides, rows, columns, u, v, x, x_rest, x_scale, inv_reg, out, n, m, k, many, blocks, span,
    USE: tl.constexpr, KIND: tl.constexpr, AXIS: tl.constexpr, DIV: tl.constexpr,
    D: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Use a block of plan rows over one span of columns.

    `USE` is "matrix" for P @ x with x (m, K), "vector" with x (m,), or "cost" for the row sums of
    P * C. `KIND` is "dense" or one of `Clouds`; the sum runs along axis 0 of a direct tile.
    """
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    i = tl.program_id(0) % blocks * BM + tl.arange(0, BM)
    # the contiguous size comes divided, see configs.Layout
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    ALONG: tl.constexpr = 1 if KIND == "dense" or KIND == "matrix" else 0
    c = tl.load(inv_reg + batch) * LOG2E
    w_i = tl.load(u + batch * n + i, mask=i < n, other=-float("inf")) * LOG2E
    if KIND == "dense":
        C += batch * strides[0] * DIV
    else:
        held = hold(rows, batch, i, KIND, D, CHUNK)
        factor = slope(rows, columns, batch, c, KIND)
        own_i = own_cost(rows, batch, i, c)
        w_i -= own_i
    x += batch * many * m * K
    total = tl.zeros([BM], tl.float32)
    if USE == "matrix":
        kk = tl.program_id(2) * BK + tl.arange(0, BK)
        if x_rest is not None:
            x_rest += batch * many * m * K
        total = tl.zeros([BM, BK], tl.float32)
        peak = tl.full([BM], -float("inf"), tl.float32)

    start = tl.program_id(1) * span
    for j0 in tl.range(start, tl.minimum(start + span, m), BN, num_stages=2):
        j = j0 + tl.arange(0, BN)
        w_j = tl.load(v + batch * m + j, mask=j < m, other=-float("inf")) * LOG2E
        if KIND == "dense":
            at = C + offsets(i, j, strides, AXIS, DIV)
            entry = tl.load(at, mask=(i < n)[:, None] & (j < m)[None, :], other=0.0)
            # minus the cost, in units of the exponent
            gain = -c * entry.to(tl.float32)
        else:
            own_j = own_cost(columns, batch, j, c)
            w_j -= own_j
            gain = factor * pairs(rows, columns, batch, i, j, held, KIND, D, CHUNK, PRECISION)
        z = gain + (tl.expand_dims(w_i, ALONG) + tl.expand_dims(w_j, 1 - ALONG))
        if USE == "matrix":
            new = tl.maximum(peak, tl.max(z, ALONG))
            top = finite(new)
            e = tl.exp2(z - tl.expand_dims(top - _TOP, ALONG))
            if ALONG == 0:
                e = e.T
            total = total * tl.exp2(peak - top)[:, None]
            total = _accumulate(x, x_rest, j, m, kk, K, e, total)
            peak = new
        elif USE == "vector":
            x_j = tl.load(x + j, mask=j < m, other=0.0)
            total += tl.sum(tl.exp2(z) * tl.expand_dims(x_j, 1 - ALONG), ALONG)
        else:
            e = tl.exp2(z)
            if KIND != "dense":
                gain -= tl.expand_dims(own_i, ALONG) + tl.expand_dims(own_j, 1 - ALONG)
            # a forbidden pair carries nothing, whatever it would cost
            total -= tl.sum(tl.where(e > 0, e * gain, 0.0), ALONG)

    part = (tl.program_id(1).to(tl.int64) * (tl.num_programs(0) // blocks) + batch) * n + i
    if USE == "matrix":
        scale = tl.load(x_scale + batch * many * K + kk)
        total = total * tl.exp2(finite(peak) - _TOP)[:, None] * scale[None, :]
        inside = (i < n)[:, None] & (kk < k)[None, :]
        tl.store(out + part[:, None] * k + kk[None, :], total, mask=inside)
    else:
        tl.store(out + part, total / c if USE == "cost" else total, mask=i < n)


class _Source(NamedTuple):
    """A cost as the kernel takes it: the arguments that say where it is and how it lies."""

    n: int
    m: int
    where: Layout
    kind: str
    width: int
    precision: str


def _source(cost: Tensor | Clouds) -> _Source:
    if isinstance(cost, Tensor):
        return _Source(cost.shape[1], cost.shape[2], layout(cost), "dense", 1, "ieee")
    nothing = Layout(-1, 1, (0, 0, 0))
    return _Source(
        cost.rows.size, cost.columns.size, nothing, cost.kind, cost.width, cost.precision
    )


def _blocks(cost: Tensor | Clouds, use: str, device: torch.device) -> Tiles:
    """Return the block sizes; a matrix takes registers that rows of a sum do not."""
    if use == "matrix":
        width = 16 if isinstance(cost, Tensor) else cost.width
        return Tiles(64, 64, width if width <= 64 else 32, 4, 2)
    if isinstance(cost, Tensor):
        BM, BN, warps = log_sum_tile(layout(cost).axis, *cost.shape[1:])
        return Tiles(BM, BN, 1, warps, 16)
    return tiles(cost, device)


def _launch(
    cost: Tensor | Clouds, u: Tensor, v: Tensor, inv_reg: Tensor, use: str, x: Tensor,
    x_rest: Tensor | None = None, x_scale: Tensor | None = None, k: int = 1,
) -> Tensor:  # fmt: skip
    """Return (B, n, k), summed over the spans that the columns were cut into."""
    batch, (n, m, where, kind, width, precision) = v.shape[0], _source(cost)
    BM, BN, CHUNK, warps, slots = _blocks(cost, use, v.device)
    K = x.shape[-1] if use == "matrix" else 1
    BK = min(K, _MAX_K)
    blocks, turns = triton.cdiv(n, BM), triton.cdiv(K, BK)
    slots = slots * multiprocessors(v.device)
    spans = spans_for(batch * blocks * turns, triton.cdiv(m, BN), slots)
    span = triton.cdiv(triton.cdiv(m, spans), BN) * BN
    spans = triton.cdiv(m, span)
    out = torch.empty((spans, batch, n, k), device=v.device, dtype=torch.float32)
    dense = isinstance(cost, Tensor)
    _apply[batch * blocks, spans, turns](
        cost if dense else None, where.strides, None if dense else cost.rows,
        None if dense else cost.columns, u.contiguous(), v.contiguous(), x, x_rest, x_scale,
        inv_reg, out, n // where.div if where.axis == 0 else n,
        m // where.div if where.axis == 1 else m, k, int(x.shape[0] > 1), blocks, span,
        USE=use, KIND=kind, AXIS=where.axis, DIV=where.div, D=width, CHUNK=CHUNK,
        PRECISION=precision, BM=BM, BN=BN, BK=BK, K=K, num_warps=warps, **OPTIONS,
    )  # fmt: skip
    return out[0] if spans == 1 else out.sum(0)


def apply(cost: Tensor | Clouds, u: Tensor, v: Tensor, x: Tensor, inv_reg: Tensor) -> Tensor:
    """Return P @ x with P_ij = exp(u_i + v_j - C_ij / reg), shape (B, n, k), float32.

    The transpose is `apply(cost.mT, v, u, x, inv_reg)`, or `cost.swapped()` for clouds.

    Args:
        cost: Stored cost (B or 1, n, m), any strides, float32, float16 or bfloat16; or clouds.
        u: Row potential (B, n), float32; -inf where the weight is zero.
        v: Column potential (B, m), float32; -inf where the weight is zero.
        x: What the plan multiplies, (B or 1, m, k), float32, float16 or bfloat16.
        inv_reg: 1 / reg of each problem (B,), float32.
    """
    k = x.shape[-1]
    if k == 1:
        return _launch(cost, u, v, inv_reg, "vector", x.float().contiguous())
    exact = x.dtype in (torch.float16, torch.bfloat16)
    K = power_of_two(k) if k <= _MAX_K else triton.cdiv(k, _MAX_K) * _MAX_K
    first, rest, scale = split(x.float(), (1,), K, exact)
    scale = torch.nn.functional.pad(scale, (0, K - k))
    return _launch(cost, u, v, inv_reg, "matrix", first, rest, scale, k)


def linear(cost: Tensor | Clouds, u: Tensor, v: Tensor, inv_reg: Tensor) -> Tensor:
    """Return what each row of the plan pays, sum_j P_ij C_ij, shape (B, n); a sum of it is <P, C>."""
    return _launch(cost, u, v, inv_reg, "cost", v)[..., 0]


def _case(n: int, m: int, k: int, d: int = 0, transpose: bool = False) -> Callable[..., object]:
    """Return a launch on clouds of d coordinates, or on a stored cost if d is 0."""

    def launch(new: Callable[..., Tensor]) -> object:
        cost = place(new(1, n, d), new(1, m, d), metric="sqeuclidean") if d else new(1, n, m)
        if transpose:
            cost = new(1, m, n).mT
        if k == 0:
            return linear(cost, new(1, n), new(1, m), new(1))
        return apply(cost, new(1, n), new(1, m), new(1, m, k), new(1))

    return launch


CASES = {
    "4096x3000 k=1": _case(4096, 3000, 1),
    "4096x3000 k=64": _case(4096, 3000, 64),
    "3000x4096 k=128 transposed": _case(3000, 4096, 128, transpose=True),
    "65536x65536 <P, C>": _case(65536, 65536, 0),
    "50000x50000 d=64 k=1": _case(50000, 50000, 1, 64),
    "50000x50000 d=64 k=64": _case(50000, 50000, 64, 64),
    "50000x50000 d=2 k=2": _case(50000, 50000, 2, 2),
    "50000x50000 d=784 k=512": _case(50000, 50000, 512, 784),
    "50000x50000 d=3 <P, C>": _case(50000, 50000, 0, 3),
}
BOUNDS = {
    "_apply": Bound(tile=("BM", "BN"), instructions=60.0, mufu=1.2, wide=False),
}
