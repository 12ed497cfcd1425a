"""One sweep over a stored cost: rows moved and columns summed, one read and one exponential an entry.

Bound per entry: one read of C (4 or 2 bytes), one exp2, one fused multiply-add into the exponent,
two adds and a multiply; the memory is the limit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import OPTIONS, Bound, Layout, layout, multiprocessors, power_of_two
from .tiles import HUGE, LN2, LOG2E, TINY, finite, offsets


@triton.jit(do_not_specialize=["n", "m"])
def _sweep_rows(
    C, u, v, a, inv_reg, kappa, done, new_u, part, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, FIRST: tl.constexpr, RELAXED: tl.constexpr,
    DONE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Take every P-th block of BM whole rows and add their columns into a vector of one's own."""
    problem = tl.program_id(1).to(tl.int64)
    first_block, step = tl.program_id(0), tl.num_programs(0)
    if DONE and tl.load(done + problem) != 0:
        return
    # one of the sizes comes divided, see configs.Layout
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    C += problem * strides[0] * DIV
    j = tl.arange(0, BN)
    slope = -LOG2E * tl.load(inv_reg + problem)
    v_j = tl.load(v + problem * m + j, mask=j < m, other=-float("inf")) * LOG2E
    columns = tl.zeros([BM, BN], tl.float32)
    for block in tl.range(first_block, tl.cdiv(n, BM), step, num_stages=STAGES):
        i = block * BM + tl.arange(0, BM)
        here = problem * n + i
        mine = C + offsets(i, j, strides, AXIS, DIV)
        inside = (i < n)[:, None] & (j < m)[None, :]
        z = tl.load(mine, mask=inside, other=0.0).to(tl.float32) * slope + v_j[None, :]
        weight = tl.load(a + here, mask=i < n, other=0.0)
        if FIRST:
            shift = -finite(tl.max(z, 1))
            base = shift * LN2
        else:
            base = tl.load(u + here, mask=i < n, other=0.0)
            shift = base * LOG2E
        e = tl.exp2(z + shift[:, None])
        total = tl.sum(e, 1)
        if not FIRST:
            lost = (weight > 0) & ~((total > TINY) & (total < HUGE))
            if tl.max(lost.to(tl.int32), 0) > 0:
                z = tl.load(mine, mask=inside, other=0.0).to(tl.float32) * slope + v_j[None, :]
                shift = -finite(tl.max(z, 1))
                base = shift * LN2
                e = tl.exp2(z + shift[:, None])
                total = tl.sum(e, 1)
        move = tl.log2(weight / total)
        w = tl.where((weight > 0) & (total > 0), weight / total, 0.0)
        tl.store(new_u + here, tl.where(weight > 0, base + move * LN2, -float("inf")), mask=i < n)
        columns += e * w[:, None]
    out = (problem * step + first_block) * m
    tl.store(part + out + j, tl.sum(columns, 0), mask=j < m)


def sweep(C, u, v, a, inv_reg, *, first=False, BM, BN, warps, stages, per=2):
    B, n, m = len(v), *C.shape[1:]
    axis, div, strides = layout(C)
    P = min(triton.cdiv(n, BM), per * multiprocessors(C.device))
    new_u = torch.empty_like(u)
    part = torch.empty(B, P, m, device=C.device)
    _sweep_rows[P, B](C, u, v, a, inv_reg, inv_reg, inv_reg, new_u, part,
        n // div if axis == 0 else n, m // div if axis == 1 else m, strides,
        AXIS=axis, DIV=div, FIRST=first, RELAXED=False, DONE=False, BM=BM, BN=BN, STAGES=stages, num_warps=warps, **OPTIONS)
    return new_u, part
