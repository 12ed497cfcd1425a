"""The second launch of a sweep over a stored cost: columns are summed and answered, rows finished.

The first left a vector of column sums for each program, and the rows' new potential in two parts. A
column whose sum has lost its digits is summed again from its maximum by the program that has it.
"""

import triton
import triton.language as tl
from torch import Tensor

from .configs import OPTIONS, all_registers, layout
from .launch import launch
from .tiles import LN2, LOG2E, TINY, extent, fold, in_range, offsets


@triton.jit
def sum_of_parts(part, problem, programs, j, m, BP: tl.constexpr, BN: tl.constexpr):
    """Return the columns' sums over the vectors of a problem's programs, in a fixed order."""
    lanes = tl.zeros([BP, BN], part.dtype.element_ty)
    for p0 in range(0, programs, BP):
        p = p0 + tl.arange(0, BP)
        at = part + (problem * programs + p)[:, None] * m + j[None, :]
        lanes += tl.load(at, mask=(p < programs)[:, None] & (j < m)[None, :], other=0.0)
    return tl.sum(lanes, 0)


@triton.jit
def _log_sums_again(
    C, bases, moves, slope, problem, j, lost, n, n_in, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Return log2 sum_i 2^(u_i - C_ij / reg) of a block's lost columns, with a running maximum."""
    peak = tl.full(j.shape, -float("inf"), slope.dtype)
    total = tl.zeros(j.shape, slope.dtype)
    for i0 in range(0, n_in, BP):
        i = i0 + tl.arange(0, BP)
        inside = (i < n_in)[:, None] & lost[None, :]
        x = tl.load(C + offsets(i, j, strides, AXIS, DIV), mask=inside, other=0.0)
        base = tl.load(bases + problem * n + i, mask=i < n_in, other=0.0)
        move = tl.load(moves + problem * n + i, mask=i < n_in, other=1.0)
        z = x.to(slope.dtype) * slope + (base * LOG2E + tl.log2(move))[:, None]
        peak, total = fold(peak, total, tl.where(inside, z, -float("inf")), 0)
    return peak + tl.log2(total)


@triton.jit(do_not_specialize=["n", "m", "programs", "blocks"])
def _answer(
    C, u, bases, moves, part, v, b, inv_reg, out, lengths, n, m, programs, blocks, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, LOG: tl.constexpr, RAGGED: tl.constexpr,
    BP: tl.constexpr, BN: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Move columns to their weights, or if `LOG` write log-sums; or take the log of rows' moves."""
    block = tl.program_id(0) % blocks
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    n_in, _ = extent(lengths, problem, n, m, AXIS, DIV, RAGGED)
    column_blocks = tl.cdiv(m, BN)
    if block < column_blocks:
        j = block * BN + tl.arange(0, BN)
        total = sum_of_parts(part, problem, programs, j, m, BP, BN)
        old = tl.load(v + problem * m + j, mask=j < m, other=-float("inf"))
        # who has no potential gets none
        live = old != -float("inf")
        if LOG:
            made = tl.log2(total) * LN2
            # relaxed rows may carry more than can be held
            lost = live & ~((total >= TINY) & (total < float("inf")))
        else:
            weight = tl.load(b + problem * m + j, mask=j < m, other=0.0)
            live = live & (weight > 0)
            made = old + tl.log2(weight / total) * LN2
            lost = live & ~in_range(total)
        if tl.max(lost.to(tl.int32), 0) > 0:
            C += problem * strides[0] * DIV
            slope = tl.load(inv_reg + problem) * -LOG2E
            again = _log_sums_again(
                C, bases, moves, slope, problem, j, lost, n, n_in, strides, AXIS, DIV, BP
            )
            if LOG:
                found = old + again * LN2
            else:
                found = (tl.log2(weight) - again) * LN2
                found = tl.where(again == -float("inf"), -float("inf"), found)
            made = tl.where(lost, found, made)
        tl.store(out + problem * m + j, tl.where(live, made, -float("inf")), mask=j < m)
    else:
        i = (block - column_blocks) * ROWS + tl.arange(0, ROWS)
        here = problem * n + i
        # where there is no row, none was moved
        base = tl.load(bases + here, mask=i < n_in, other=0.0)
        move = tl.load(moves + here, mask=i < n_in, other=0.0)
        tl.store(u + here, base + tl.log2(move) * LN2, mask=i < n)


def answer(
    C: Tensor, u: Tensor, bases: Tensor, moves: Tensor, part: Tensor, v: Tensor, b: Tensor | None,
    inv_reg: Tensor, out: Tensor, lengths: Tensor | None = None,
) -> None:  # fmt: skip
    """Write what the columns of a sweep come to, and the row potential `u` (B, n).

    All are contiguous, but for the cost.

    Args:
        C: Cost (B, n, m) or (1, n, m) for all problems.
        u: Where to write the row potential.
        bases: A part of it (B, n), in another tensor.
        moves: What adds its logarithm to that (B, n).
        part: Column sums of each program (B, programs, m).
        v: Column potential that was swept (B, m).
        b: Column weights (B, m), to which `v` is moved; None asks for the logarithms of the sums.
        inv_reg: 1 / reg of each problem (B,).
        out: Where to write either (B, m); may be `v` itself.
        lengths: How many first rows and columns each problem has (B, 2); None if all have all.
    """
    B, n, m = *u.shape, v.shape[1]
    axis, div, strides, sizes = layout(C)
    blocks = triton.cdiv(m, 64) + triton.cdiv(n, 512)
    launch(
        # a pointer that a constant switch leaves unread still has to be one
        _answer, B * blocks, C, u, bases, moves, part, v, v if b is None else b, inv_reg, out,
        inv_reg if lengths is None else lengths, *sizes, part.shape[1], blocks, strides, AXIS=axis,
        DIV=div, LOG=b is None, RAGGED=lengths is not None, BP=32, BN=64, ROWS=512, num_warps=4,
        **all_registers(C.device, 4), **OPTIONS,
    )  # fmt: skip
