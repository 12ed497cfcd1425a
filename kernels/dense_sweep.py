"""One sweep over a stored cost: rows moved, columns summed, one read and one exponential an entry.

Per entry: one read of C (4 or 2 bytes), one exp2, two fused multiply-adds and two adds: seven
instructions in all, so the memory is the limit. Rows stay in registers between their sum and the
columns' sums. Rows too long for that are swept in two reads, by `log_sums`.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .columns import answer, sum_of_parts
from .configs import OPTIONS, RowTile, layout, multiprocessors, row_programs, row_tile
from .launch import launch
from .log_sums import log_sum_columns, move_rows, sum_columns
from .tiles import LN2, LOG2E, TINY, exp2, extent, finite, in_range, offsets


# rows of a lost column that the program which has it sums again by itself
_SHORT = 8192


@triton.jit
def _load_rows(
    C, i, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr,
    RAGGED: tl.constexpr = False,
):  # fmt: skip
    """Return the rows `i` in chunks of W columns; a mask only where a chunk may stick out."""
    xs = ()
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        at = C + offsets(i, j, strides, AXIS, DIV)
        if RAGGED or c == CHUNKS - 1:
            x = tl.load(at, mask=(i < n)[:, None] & (j < m)[None, :], other=0.0)
        elif i.shape[0] > 1:
            x = tl.load(at, mask=(i < n)[:, None], other=0.0)
        else:
            x = tl.load(at)
        xs = xs + (x,)  # type: ignore[assignment]
    return xs


@triton.jit
def _rows_ahead(
    C, i, n, m, strides, AXIS: tl.constexpr, DIV: tl.constexpr, W: tl.constexpr,
    CHUNKS: tl.constexpr, PREFETCH: tl.constexpr, RAGGED: tl.constexpr = False,
):  # fmt: skip
    """Return the rows `i`, that they may be on their way; nothing unless `PREFETCH`."""
    ahead = ()
    if PREFETCH:
        ahead = _load_rows(C, i, n, m, strides, AXIS, DIV, W, CHUNKS, RAGGED)
    return ahead


@triton.jit
def _next_rows(
    C, ahead, i, after, n, m, strides, AXIS: tl.constexpr, DIV: tl.constexpr, W: tl.constexpr,
    CHUNKS: tl.constexpr, PREFETCH: tl.constexpr, RAGGED: tl.constexpr = False,
):  # fmt: skip
    """Return the rows `i`, which if `PREFETCH` are those ahead, and the rows `after` them."""
    if PREFETCH:
        xs = ahead
        ahead = _load_rows(C, after, n, m, strides, AXIS, DIV, W, CHUNKS, RAGGED)
    else:
        xs = _load_rows(C, i, n, m, strides, AXIS, DIV, W, CHUNKS, RAGGED)
    return xs, ahead


@triton.jit
def _peaks(xs, vs, slope, CHUNKS: tl.constexpr):
    """Return the largest exponent of each row."""
    ACC: tl.constexpr = vs[0].dtype
    lanes = xs[0].to(ACC) * slope + vs[0][None, :]
    for c in tl.static_range(1, CHUNKS):
        lanes = tl.maximum(lanes, xs[c].to(ACC) * slope + vs[c][None, :])
    return finite(tl.max(lanes, 1))


@triton.jit
def _exponentials(xs, vs, slope, shift, CHUNKS: tl.constexpr):
    """Return 2^(v - C / reg + shift) and its row sums."""
    ACC: tl.constexpr = vs[0].dtype
    es = ()
    lanes = tl.zeros(xs[0].shape, ACC)
    for c in tl.static_range(CHUNKS):
        e = exp2(xs[c].to(ACC) * slope + (vs[c][None, :] + shift[:, None]))
        lanes += e
        es = es + (e,)  # type: ignore[assignment]
    return es, tl.sum(lanes, 1)


@triton.jit
def _moved(base, total, weight, kappa, RELAXED: tl.constexpr):
    """Return (base, move) of the new row potential `base + log(move)`, and the rows' rescaling.

    The logarithm is left to `_finish`: here every thread of a row would take it.
    """
    if RELAXED:
        shift = base * LOG2E
        # a free row keeps its weight, whatever its sum
        lost = tl.where(kappa > 0, kappa * (tl.log2(total) - shift), 0.0)
        new = tl.log2(weight) - lost
        live = (weight > 0) & (lost != -float("inf"))
        scale = tl.where((weight > 0) & (total > 0), exp2(new - shift), 0.0)
        return tl.where(live, new * LN2, 0.0), live.to(base.dtype), scale
    # a row whose every pair is forbidden is as one without weight
    move = tl.where((weight > 0) & (total != 0), weight / total, 0.0)
    return base, move, tl.where(total > 0, move, 0.0)


@triton.jit(do_not_specialize=["n", "m", "programs"])
def _sweep_rows(  # noqa: C901, PLR0915
    C, u, v, a, inv_reg, kappa, done, lengths, bases, moves, part, n, m, programs, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, FIRST: tl.constexpr, RELAXED: tl.constexpr,
    DONE: tl.constexpr, RAGGED: tl.constexpr, BM: tl.constexpr, W: tl.constexpr,
    CHUNKS: tl.constexpr, PREFETCH: tl.constexpr,
):  # fmt: skip
    """Take every P-th block of BM whole rows and sum their columns into a vector of one's own."""
    program = tl.program_id(0) % programs
    problem = (tl.program_id(0) // programs).to(tl.int64)
    if DONE:  # noqa: SIM102
        if tl.load(done + problem) != 0:
            return
    # the contiguous size comes divided, see configs.Layout
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    n_in, m_in = extent(lengths, problem, n, m, AXIS, DIV, RAGGED)
    C += problem * strides[0] * DIV
    slope = tl.load(inv_reg + problem) * -LOG2E
    elasticity = tl.load(kappa + problem) if RELAXED else 1.0
    vs = ()
    sums = ()
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        v_j = tl.load(v + problem * m + j, mask=j < m_in, other=-float("inf")) * LOG2E
        vs = vs + (v_j,)  # type: ignore[assignment]
        sums = sums + (tl.zeros([BM, W], v_j.dtype),)  # type: ignore[assignment]
    rows = tl.arange(0, BM)
    blocks = tl.cdiv(n_in, BM)
    ahead = _rows_ahead(
        C, program * BM + rows, n_in, m_in, strides, AXIS, DIV, W, CHUNKS, PREFETCH, RAGGED
    )
    for block in range(program, blocks, programs):
        i = block * BM + rows
        here = problem * n + i
        after = tl.minimum(block + programs, blocks - 1) * BM + rows
        xs, ahead = _next_rows(
            C, ahead, i, after, n_in, m_in, strides, AXIS, DIV, W, CHUNKS, PREFETCH, RAGGED
        )
        weight = tl.load(a + here, mask=i < n_in, other=0.0)
        if FIRST:
            base = _peaks(xs, vs, slope, CHUNKS) * -LN2
        else:
            # a row past the end has no exponentials: times its weight of zero, inf would be nan
            base = tl.load(u + here, mask=i < n_in, other=-float("inf"))
        es, total = _exponentials(xs, vs, slope, base * LOG2E, CHUNKS)
        if not FIRST:
            # nan is lost too
            lost = (weight > 0) & ~in_range(total)
            if tl.max(lost.to(tl.int32), 0) > 0:
                # read again rather than kept: the entries' registers hold the exponentials now
                again = _load_rows(C, i, n_in, m_in, strides, AXIS, DIV, W, CHUNKS, RAGGED)
                base = _peaks(again, vs, slope, CHUNKS) * -LN2
                es, total = _exponentials(again, vs, slope, base * LOG2E, CHUNKS)
        base, move, scale = _moved(base, total, weight, elasticity, RELAXED)
        tl.store(bases + here, base, mask=i < n_in)
        tl.store(moves + here, move, mask=i < n_in)
        more = ()
        for c in tl.static_range(CHUNKS):
            more = more + (sums[c] + es[c] * scale[:, None],)  # type: ignore[assignment]
        sums = more
    mine = part + tl.program_id(0).to(tl.int64) * m
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        tl.store(mine + j, tl.sum(sums[c], 0), mask=j < m)


@triton.jit(do_not_specialize=["n", "m", "programs", "blocks"])
def _finish(
    u, s, bases, moves, part, v, b, new_v, done, lengths, n, m, programs, blocks,
    DIV: tl.constexpr, MOVE: tl.constexpr, DONE: tl.constexpr, RAGGED: tl.constexpr,
    BP: tl.constexpr, BN: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Sum the programs' vectors into s, or take the logarithm of the rows' moves."""
    block = tl.program_id(0) % blocks
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    if DONE:  # noqa: SIM102
        if tl.load(done + problem) != 0:
            return
    m = m * DIV
    n_in, _ = extent(lengths, problem, n, m, -1, 1, RAGGED)
    column_blocks = tl.cdiv(m, BN)
    if block < column_blocks:
        j = block * BN + tl.arange(0, BN)
        total = sum_of_parts(part, problem, programs, j, m, BP, BN)
        tl.store(s + problem * m + j, total, mask=j < m)
        if MOVE:
            weight = tl.load(b + problem * m + j, mask=j < m, other=0.0)
            old = tl.load(v + problem * m + j, mask=j < m, other=0.0)
            moved = old + tl.log2(weight / total) * LN2
            tl.store(
                new_v + problem * m + j, tl.where(weight > 0, moved, -float("inf")), mask=j < m
            )
    else:
        i = (block - column_blocks) * ROWS + tl.arange(0, ROWS)
        here = problem * n + i
        # where there is no row, none was moved
        base = tl.load(bases + here, mask=i < n_in, other=0.0)
        move = tl.load(moves + here, mask=i < n_in, other=0.0)
        tl.store(u + here, base + tl.log2(move) * LN2, mask=i < n)


def sweep(  # noqa: PLR0913
    C: Tensor, u: Tensor | None, v: Tensor, a: Tensor, inv_reg: Tensor, *,
    kappa: Tensor | None = None, first: bool = False, done: Tensor | None = None,
    out: tuple[Tensor, Tensor] | None = None, move: tuple[Tensor, Tensor] | None = None,
    log: bool = False, lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Move the row potential to its marginal and sum the columns of the plan at the new one.

    Args:
        C: Cost (B, n, m) or (1, n, m) for all problems, any strides and floating dtype.
        u: Row potential (B, n) that keeps the exponentials in range; None with `first`.
        v: Column potential (B, m), float32 or float64, in which everything is computed; -inf where
            the weight is zero.
        a: Row weights (B, n).
        inv_reg: 1 / reg of each problem (B,); minus that, for scores instead of costs.
        kappa: Elasticity of relaxed rows (B,); None for exact marginals, 0 for a free one.
        first: Take the maximum of every row; for a first sweep, or after a change of reg. Relaxed
            rows always take it.
        done: Problems to be left out (B,), int32; `out` keeps what it holds for them.
        out: Where to write the result; its first tensor may be `u` itself.
        move: Column weights b (B, m), and where to write the column potential v + log b - log s
            that answers them; this may be `v` itself.
        log: Return the logarithm of the column sums, which cannot underflow; beside none of `done`,
            `out` and `move`.
        lengths: How many first rows and columns each problem has (B, 2), int32, with weights of
            zero beyond; of the cost at most 15 more are read. None if all have all.

    Returns:
        The new row potential (B, n) and the plan's column sums (B, m).
    """
    assert done is None or out is not None, "a problem left out needs an out that holds its values"
    B, n, m = v.shape[0], *C.shape[1:]
    new_u, s = out or (_empty(v, B, n), _empty(v, B, m))
    tile = row_tile(m, layout(C).axis, v.itemsize)
    if tile is None:
        move_rows(C, v, a, inv_reg, kappa, done, out=new_u)
        if log:
            return new_u, log_sum_columns(C, new_u, inv_reg) + v
        sum_columns(C, new_u, v, inv_reg, done, out=s, move=move)
        return new_u, s
    # a relaxed row does not come back to its weight, so the last potential is a poor guess
    first = first or u is None or kappa is not None
    held = new_u if u is None else u
    short = log and n <= _SHORT
    # who sums columns again reads the rows' parts, while others write what they come to
    bases, v = _empty(v, B, n) if short else new_u, v.contiguous()
    moves, part = _rows_on_chip(tile, C, held, v, a, inv_reg, kappa, first, done, bases, lengths)
    if short:
        answer(C, new_u, bases, moves, part, v, None, inv_reg, s, lengths)
    else:
        _finish_on_chip(new_u, s, moves, part, v, move, done, lengths)
    return new_u, _logs(C, new_u, v, s, inv_reg) if log and not short else s


def _logs(C: Tensor, u: Tensor, v: Tensor, s: Tensor, inv_reg: Tensor) -> Tensor:
    """Return the logarithms of column sums; of those that are lost, of sums that all take again."""
    # relaxed rows may carry more than can be held
    lost = ~((s >= TINY.value) & (s < math.inf)) & (v > -math.inf)
    again = log_sum_columns(C, u, inv_reg, only=lost)
    return torch.where(lost, again + v, s.log())


def _rows_on_chip(
    tile: RowTile, C: Tensor, u: Tensor, v: Tensor, a: Tensor, inv_reg: Tensor,
    kappa: Tensor | None, first: bool, done: Tensor | None, bases: Tensor, lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Write a part of the rows' potential; return the other, and each program's column sums."""
    B, n, m = v.shape[0], *C.shape[1:]
    axis, div, strides, sizes = layout(C)
    blocks, sms = triton.cdiv(n, tile.BM), multiprocessors(C.device)
    programs = row_programs(n, C.itemsize / v.itemsize, blocks, tile.num_warps, B, sms)
    part, moves = _empty(v, B, programs, m), _empty(v, B, n)
    launch(
        _sweep_rows, B * programs,
        C, u.contiguous(), v, a.contiguous(), inv_reg,
        # a pointer that a constant switch leaves unread still has to be one
        inv_reg if kappa is None else kappa, inv_reg if done is None else done,
        inv_reg if lengths is None else lengths, bases, moves, part,
        *sizes, programs, strides,
        AXIS=axis, DIV=div, FIRST=first, RELAXED=kappa is not None, DONE=done is not None,
        RAGGED=lengths is not None, **tile._asdict(), **OPTIONS,
    )  # fmt: skip
    return moves, part


def _finish_on_chip(
    new_u: Tensor, s: Tensor, moves: Tensor, part: Tensor, v: Tensor,
    move: tuple[Tensor, Tensor] | None, done: Tensor | None, lengths: Tensor | None,
) -> None:  # fmt: skip
    """Sum what the programs summed, and put both parts of the rows' potential together."""
    B, n, m = *new_u.shape, v.shape[1]
    b, new_v = (v, v) if move is None else move
    div, blocks = layout(part).div, triton.cdiv(m, 64) + triton.cdiv(n, 512)
    launch(
        _finish, B * blocks,
        new_u, s, new_u, moves, part, v, b.contiguous(), new_v, moves if done is None else done,
        moves if lengths is None else lengths, n, m // div, part.shape[1], blocks, DIV=div,
        MOVE=move is not None, DONE=done is not None, RAGGED=lengths is not None, BP=32, BN=64,
        ROWS=512, num_warps=4, **OPTIONS,
    )  # fmt: skip


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, device=like.device, dtype=like.dtype)
