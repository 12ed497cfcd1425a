"""Sums of exponentials in log domain, along the rows or the columns of a stored cost.

A running maximum makes them safe from any start: the first half-step of a solve, the rescue of a
column that underflows, and the second design of a sweep, for rows too long to stay on chip. Per
entry: one read of C, one exp2, a multiply-add, a maximum, two adds.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import OPTIONS, all_registers, layout, log_sum_tile, multiprocessors
from .launch import launch
from .tiles import LN2, LOG2E, exp2, fold, merge, offsets


# what the merging kernel makes of the log of a sum
LOG, ROWS, COLUMNS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit(do_not_specialize=["n", "m", "blocks", "splits", "span"])
def _log_sum(
    C, w, inv_reg, only, done, peaks, totals, n, m, blocks, splits, span, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, ONLY: tl.constexpr, DONE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Fold `span` tiles of BM rows into a maximum and a sum of 2^(w - C / reg) for each row."""
    block = tl.program_id(0) % blocks
    split = tl.program_id(0) // blocks % splits
    problem = (tl.program_id(0) // blocks // splits).to(tl.int64)
    if DONE:  # noqa: SIM102
        if tl.load(done + problem) != 0:
            return
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    i = block * BM + tl.arange(0, BM)
    if ONLY:  # noqa: SIM102
        if tl.max(tl.load(only + problem * n + i, mask=i < n, other=0).to(tl.int32), 0) == 0:
            return
    C += problem * strides[0] * DIV
    slope = tl.load(inv_reg + problem) * -LOG2E
    ACC: tl.constexpr = w.dtype.element_ty
    peak = tl.full([BM], -float("inf"), ACC)
    total = tl.zeros([BM], ACC)
    for tile in range(split * span, tl.minimum(tl.cdiv(m, BN), (split + 1) * span)):
        j = tile * BN + tl.arange(0, BN)
        w_j = tl.load(w + problem * m + j, mask=j < m, other=-float("inf")) * LOG2E
        inside = (i < n)[:, None] & (j < m)[None, :]
        x = tl.load(C + offsets(i, j, strides, AXIS, DIV), mask=inside, other=0.0).to(ACC)
        peak, total = fold(peak, total, x * slope + w_j[None, :], 1)
    out = (problem * splits + split) * n + i
    tl.store(peaks + out, peak, mask=i < n)
    tl.store(totals + out, total, mask=i < n)


@triton.jit(do_not_specialize=["n", "blocks", "splits"])
def _merge(
    peaks, totals, weight, kappa, b, new_v, only, done, out, n, blocks, splits,
    MAKE: tl.constexpr, RELAXED: tl.constexpr, MOVE: tl.constexpr, ONLY: tl.constexpr,
    DONE: tl.constexpr,
    BS: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Merge the pairs of all splits, and make of their logarithm what is wanted."""
    block = tl.program_id(0) % blocks
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    if DONE:  # noqa: SIM102
        if tl.load(done + problem) != 0:
            return
    i = block * BN + tl.arange(0, BN)
    here = problem * n + i
    wanted = i < n
    if ONLY:
        wanted = wanted & (tl.load(only + here, mask=i < n, other=0).to(tl.int32) != 0)
    peak = tl.full([BN], -float("inf"), peaks.dtype.element_ty)
    total = tl.zeros([BN], peaks.dtype.element_ty)
    # a block whose rows are not wanted was not summed: it only gets its -inf
    for s0 in range(0, tl.where(tl.max(wanted.to(tl.int32), 0) > 0, splits, 0), BS):
        s = s0 + tl.arange(0, BS)
        inside = (s < splits)[:, None] & wanted[None, :]
        at = (problem * splits + s)[:, None] * n + i[None, :]
        some = tl.load(peaks + at, mask=inside, other=-float("inf"))
        more, sums = merge(some, tl.load(totals + at, mask=inside, other=0.0), 0)
        top = tl.maximum(peak, more)
        safe = tl.where(top == -float("inf"), 0.0, top)
        total = total * exp2(peak - safe) + sums * exp2(more - safe)
        peak = top
    log_sum = peak + tl.log2(total)
    if MAKE == LOG:
        made = log_sum * LN2
    elif MAKE == ROWS:
        a = tl.load(weight + here, mask=i < n, other=1.0)
        if RELAXED:
            elasticity = tl.load(kappa + problem)
            log_sum = tl.where(elasticity > 0, elasticity * log_sum, 0.0)
        live = (a > 0) & (log_sum != -float("inf"))
        made = tl.where(live, (tl.log2(a) - log_sum) * LN2, -float("inf"))
    else:
        made = exp2(log_sum + tl.load(weight + here, mask=i < n, other=0.0) * LOG2E)
        if MOVE:
            target = tl.load(b + here, mask=i < n, other=1.0)
            moved = tl.where(target > 0, (tl.log2(target) - log_sum) * LN2, -float("inf"))
            tl.store(new_v + here, moved, mask=i < n)
    tl.store(out + here, made, mask=i < n)


def log_sum_rows(
    C: Tensor, v: Tensor, inv_reg: Tensor, only: Tensor | None = None, done: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return log sum_j exp(v_j - C_ij / reg), shape (B, n).

    Args:
        C: Cost (B, n, m) or (1, n, m) for all problems, any strides and floating dtype.
        v: Column potential (B, m), float32 or float64, in which everything is computed.
        inv_reg: 1 / reg of each problem (B,); minus that, for scores instead of costs.
        only: Rows that are wanted (B, n), bool; a block without one is not read. -inf elsewhere.
        done: Problems to be left out (B,), int32; `out` keeps what it holds for them.
        out: Where to write the result.
    """
    return _reduce(LOG, C, v, inv_reg, only=only, done=done, out=out)


def log_sum_columns(
    C: Tensor, u: Tensor, inv_reg: Tensor, only: Tensor | None = None, done: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return log sum_i exp(u_i - C_ij / reg), shape (B, m); see `log_sum_rows`."""
    return _reduce(LOG, C.mT, u, inv_reg, only=only, done=done, out=out)


def move_rows(
    C: Tensor, v: Tensor, a: Tensor, inv_reg: Tensor, kappa: Tensor | None = None,
    done: Tensor | None = None, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the row potential log a - kappa * log_sum_rows; -inf without weight or partner."""
    return _reduce(ROWS, C, v, inv_reg, weight=a, kappa=kappa, done=done, out=out)


def sum_columns(
    C: Tensor, u: Tensor, v: Tensor, inv_reg: Tensor, done: Tensor | None, out: Tensor,
    move: tuple[Tensor, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Write the plan's column sums exp(v + log_sum_columns); see `dense_sweep.sweep` for `move`."""
    return _reduce(COLUMNS, C.mT, u, inv_reg, weight=v, done=done, out=out, move=move)


def peaks_and_totals(
    C: Tensor, w: Tensor, inv_reg: Tensor, only: Tensor | None = None, done: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return maxima and sums of 2^(w - C / reg) along the rows in parts, each (B, parts, n)."""
    B, n, m = w.shape[0], *C.shape[1:]
    axis, div, strides, sizes = layout(C)
    tile = log_sum_tile(axis, n, m, w.itemsize)
    blocks, sms = triton.cdiv(n, tile.BM), multiprocessors(C.device)
    # enough programs to fill the device twice over, none with less than a few tiles
    tiles = triton.cdiv(m, tile.BN)
    splits = max(1, min(triton.cdiv(tiles, 4), triton.cdiv(64 * sms // tile.num_warps, B * blocks)))
    span = triton.cdiv(tiles, splits)
    splits = triton.cdiv(tiles, span)
    peaks, totals = (torch.empty(B, splits, n, device=C.device, dtype=w.dtype) for _ in "pt")
    registers = all_registers(C.device, tile.num_warps) if w.itemsize == 8 else {}
    launch(
        _log_sum, B * splits * blocks,
        C, w.contiguous(), inv_reg,
        inv_reg if only is None else only, inv_reg if done is None else done,
        peaks, totals, *sizes,
        blocks, splits, span, strides,
        AXIS=axis, DIV=div, ONLY=only is not None, DONE=done is not None,
        **tile._asdict(), **registers, **OPTIONS,
    )  # fmt: skip
    return peaks, totals


def _reduce(
    make: tl.constexpr, C: Tensor, w: Tensor, inv_reg: Tensor, *, weight: Tensor | None = None,
    kappa: Tensor | None = None, only: Tensor | None = None, done: Tensor | None = None,
    out: Tensor | None = None, move: tuple[Tensor, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    peaks, totals = peaks_and_totals(C, w, inv_reg, only, done)
    B, splits, n = peaks.shape
    if out is None:
        out = torch.empty(B, n, device=C.device, dtype=w.dtype)
    unread = inv_reg
    b, new_v = move or (unread, unread)
    blocks = triton.cdiv(n, 128)
    launch(
        _merge, B * blocks,
        peaks, totals, unread if weight is None else weight.contiguous(),
        unread if kappa is None else kappa, b.contiguous(), new_v,
        unread if only is None else only, unread if done is None else done, out, n, blocks, splits,
        MAKE=make.value, RELAXED=kappa is not None, MOVE=move is not None, ONLY=only is not None,
        DONE=done is not None, BS=8, BN=128, num_warps=4, **OPTIONS,
    )  # fmt: skip
    return out
