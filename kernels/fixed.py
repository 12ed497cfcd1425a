"""A fixed number of plain sweeps over a stored cost: two launches each, and nothing besides.

The second launch of a sweep sums the programs' vectors, as `dense_sweep` does, and answers them at
once. A column whose sum has lost its digits is summed again from its maximum by the program that
has it; one that no pair allows is left at -inf.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import OPTIONS, all_registers, layout, multiprocessors, row_programs, row_tile
from .dense_sweep import _sweep_rows, sum_of_parts
from .launch import launch
from .tiles import LN2, LOG2E, fold, in_range, offsets


@triton.jit
def _moved_rows(bases, moves, at, inside):
    """Return the rows' new potential to base 2, which the sweep left in two parts."""
    base = tl.load(bases + at, mask=inside, other=0.0)
    move = tl.load(moves + at, mask=inside, other=1.0)
    return base * LOG2E + tl.log2(move)


@triton.jit
def _log_sums_again(
    C, bases, moves, slope, problem, j, lost, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Return log2 sum_i 2^(u_i - C_ij / reg) of a block's lost columns, with a running maximum."""
    peak = tl.full(j.shape, -float("inf"), slope.dtype)
    total = tl.zeros(j.shape, slope.dtype)
    for i0 in range(0, n, BP):
        i = i0 + tl.arange(0, BP)
        inside = (i < n)[:, None] & lost[None, :]
        x = tl.load(C + offsets(i, j, strides, AXIS, DIV), mask=inside, other=0.0)
        u_i = _moved_rows(bases, moves, problem * n + i, i < n)
        z = x.to(slope.dtype) * slope + u_i[:, None]
        peak, total = fold(peak, total, tl.where(inside, z, -float("inf")), 0)
    return peak + tl.log2(total)


@triton.jit(do_not_specialize=["n", "m", "programs", "blocks"])
def _answer(
    C, u, bases, moves, part, v, b, inv_reg, n, m, programs, blocks, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Move a block of columns to their weights, or take the logarithm of the rows' moves."""
    block = tl.program_id(0) % blocks
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    column_blocks = tl.cdiv(m, BN)
    if block < column_blocks:
        j = block * BN + tl.arange(0, BN)
        total = sum_of_parts(part, problem, programs, j, m, BP, BN)
        weight = tl.load(b + problem * m + j, mask=j < m, other=0.0)
        old = tl.load(v + problem * m + j, mask=j < m, other=-float("inf"))
        moved = old + tl.log2(weight / total) * LN2
        # who has no potential gets none
        live = (weight > 0) & (old != -float("inf"))
        lost = live & ~in_range(total)
        if tl.max(lost.to(tl.int32), 0) > 0:
            C += problem * strides[0] * DIV
            slope = tl.load(inv_reg + problem) * -LOG2E
            again = _log_sums_again(
                C, bases, moves, slope, problem, j, lost, n, m, strides, AXIS, DIV, BP
            )
            found = (tl.log2(weight) - again) * LN2
            found = tl.where(again == -float("inf"), -float("inf"), found)
            moved = tl.where(lost, found, moved)
        tl.store(v + problem * m + j, tl.where(live, moved, -float("inf")), mask=j < m)
    else:
        i = (block - column_blocks) * ROWS + tl.arange(0, ROWS)
        here = problem * n + i
        tl.store(u + here, _moved_rows(bases, moves, here, i < n) * LN2, mask=i < n)


def serves(C: Tensor, dtype: torch.dtype) -> bool:
    """Say whether rows stay on chip, for potentials of this dtype."""
    return row_tile(C.shape[2], layout(C).axis, dtype.itemsize) is not None


def sweeps(
    C: Tensor, a: Tensor, b: Tensor, inv_reg: Tensor, n_iter: int, v: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the potentials (B, n) and (B, m) that plain sweeps lead to, rows first.

    Args:
        C: Cost (B, n, m) or (1, n, m) for all problems, any strides and floating dtype.
        a: Row weights (B, n).
        b: Column weights (B, m), float32 or float64, in which everything is computed.
        inv_reg: 1 / reg of each problem (B,).
        n_iter: Sweeps, at least one.
        v: Column potential to start from (B, m); None for log b.
    """
    B, n, m = b.shape[0], *C.shape[1:]
    axis, div, strides, sizes = layout(C)
    tile = row_tile(m, axis, b.itemsize)
    assert tile is not None
    sms = multiprocessors(C.device)
    P = row_programs(n, C.itemsize / b.itemsize, triton.cdiv(n, tile.BM), tile.num_warps, B, sms)
    a, b = a.contiguous(), b.contiguous()
    v = b.log() if v is None else v.clone(memory_format=torch.contiguous_format)
    u, bases, moves = (torch.empty(B, n, device=C.device, dtype=b.dtype) for _ in range(3))
    part = torch.empty(B, P, m, device=C.device, dtype=b.dtype)
    blocks, registers = triton.cdiv(m, 64) + triton.cdiv(n, 512), all_registers(C.device, 4)
    for k in range(n_iter):
        # a pointer that a constant switch leaves unread still has to be one
        launch(
            _sweep_rows, B * P, C, u, v, a, inv_reg, inv_reg, inv_reg, bases, moves, part, *sizes,
            P, strides, AXIS=axis, DIV=div, FIRST=k == 0, RELAXED=False, DONE=False,
            **tile._asdict(), **OPTIONS,
        )  # fmt: skip
        launch(
            _answer, B * blocks, C, u, bases, moves, part, v, b, inv_reg, *sizes, P, blocks,
            strides, AXIS=axis, DIV=div, BP=32, BN=64, ROWS=512, num_warps=4, **registers,
            **OPTIONS,
        )  # fmt: skip
    return u, v
