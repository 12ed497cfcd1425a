"""Codes of rows and columns too long for the chip: each half-step is a read, tile by tile.

Scores are taken from their prototype's peak before they are scaled, so that the exponents that
matter are small numbers, and rounded as such: a potential at the peak is next to zero, and one at a
score of zero may be any size. The splits of a row are merged by the last of them that is done.
"""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .codes_rows import outputs
from .codes_steps import counted, rate
from .configs import OPTIONS, LogSumTile, layout, log_sum_tile, multiprocessors
from .launch import launch
from .tiles import finite, offsets


# where the peaks of the prototypes are: to be found, or known for the rows or for the columns
FIND, OF_ROWS, OF_COLUMNS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def _last_done(ticket, many):
    """Say whether this is the last of `many` programs to come here, who then sees all they wrote.

    It leaves the ticket as it found it, at zero.
    """
    tl.debug_barrier()
    last = tl.atomic_add(ticket, 1, sem="acq_rel", scope="gpu") == many - 1
    if last:
        tl.atomic_xchg(ticket, 0, sem="relaxed", scope="gpu")
    tl.debug_barrier()
    return last


@triton.jit(do_not_specialize=["n", "m", "blocks", "splits", "span"])
def _scale_rows(  # noqa: C901, PLR0915
    S, w, centres, weight, inv_eps, keep, tickets, peaks, totals, out, scales,
    n, m, blocks, splits, span, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, CENTRES: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Fold `span` tiles of a block of rows; the last split of a block scales its rows."""
    block = tl.program_id(0) % blocks
    split = tl.program_id(0) // blocks % splits
    problem = (tl.program_id(0) // blocks // splits).to(tl.int64)
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    i = block * BM + tl.arange(0, BM)
    here = problem * n + i
    S += problem * strides[0] * DIV
    slope = rate(inv_eps, problem)
    # maxima of scores that are not centred yet wait for their slope
    late = slope if CENTRES == FIND else 1.0
    soon = 1.0 if CENTRES == FIND else slope
    centre = tl.zeros([BM], tl.float32)
    if CENTRES == OF_ROWS:
        centre = tl.load(centres + here, mask=i < n, other=0.0)
    peak = tl.full([BM], -float("inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    for tile in range(split * span, tl.minimum(tl.cdiv(m, BN), (split + 1) * span)):
        j = tile * BN + tl.arange(0, BN)
        inside = (i < n)[:, None] & (j < m)[None, :]
        x = tl.load(S + offsets(i, j, strides, AXIS, DIV), mask=inside, other=0.0).to(tl.float32)
        if CENTRES == FIND:
            w_j = tl.where(counted(keep, problem, j, m, MASKED), 0.0, -float("inf"))
        else:
            w_j = tl.load(w + problem * m + j, mask=j < m, other=-float("inf"))
        if CENTRES == OF_COLUMNS:
            x -= tl.load(centres + problem * m + j, mask=j < m, other=0.0)[None, :]
        z = (x - centre[:, None]) * soon + w_j[None, :]
        new = tl.maximum(peak, tl.max(z, 1))
        top = finite(new)
        total = total * tl.exp2((peak - top) * late)
        total += tl.sum(tl.exp2((z - top[:, None]) * late), 1)
        peak = new
    mine = (problem * splits + split) * n + i
    tl.store(peaks + mine, peak, mask=i < n)
    tl.store(totals + mine, total, mask=i < n)
    if _last_done(tickets + problem * blocks + block, splits):
        peak = tl.full([BM], -float("inf"), tl.float32)
        total = tl.zeros([BM], tl.float32)
        for s0 in range(0, splits, BS):
            s = s0 + tl.arange(0, BS)
            inside = (s < splits)[:, None] & (i < n)[None, :]
            at = (problem * splits + s)[:, None] * n + i[None, :]
            some = tl.load(peaks + at, mask=inside, other=-float("inf"), cache_modifier=".cg")
            sums = tl.load(totals + at, mask=inside, other=0.0, cache_modifier=".cg")
            new = tl.maximum(peak, tl.max(some, 0))
            top = finite(new)
            total = total * tl.exp2((peak - top) * late)
            total += tl.sum(sums * tl.exp2((some - top[None, :]) * late), 0)
            peak = new
        if CENTRES == FIND:
            # without a sample that counts the peak is of no matter
            tl.store(centres + here, finite(peak), mask=i < n)
            made = -tl.log2(total)
        elif scales is not None:
            # a code has more digits than the logarithm of a sum
            made = -finite(peak)
            tl.store(scales + here, 1.0 / total, mask=i < n)
        else:
            made = -(peak + tl.log2(total))
        if weight is not None:
            made += tl.log2(tl.load(weight + here, mask=i < n, other=1.0))
        if CENTRES == OF_COLUMNS:
            made = tl.where(counted(keep, problem, i, n, MASKED), made, -float("inf"))
        tl.store(out + here, made, mask=i < n)


@triton.jit
def put_tile(
    z, g, scale, i, j, n, m, problem, column, column_blocks, keep, codes, peaks, places,
    MASKED: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    """Write the codes 2^(z + g) scale of a tile, and the maximum of each of its rows."""
    kept = counted(keep, problem, i, n, MASKED)
    if SOFT:
        code = tl.where(kept[:, None], tl.exp2(z + g[:, None]) * scale[:, None], 0.0)
        out = codes + (problem * n + i)[:, None] * m + j[None, :]
        inside = (i < n)[:, None] & (j < m)[None, :]
        tl.store(out, code.to(codes.dtype.element_ty), mask=inside)
    if HARD:
        peak = tl.max(z, 1)
        place = tl.min(tl.where(z == peak[:, None], j[None, :], m), 1)
        out = (problem * n + i) * column_blocks + column
        tl.store(peaks + out, peak, mask=i < n)
        tl.store(places + out, tl.where(kept & (place < m), place, -1).to(tl.int64), mask=i < n)


@triton.jit(do_not_specialize=["n", "m", "row_blocks", "column_blocks"])
def _write_tiles(
    S, f, centres, g, scales, inv_eps, keep, codes, peaks, places, n, m, row_blocks,
    column_blocks, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, SOFT: tl.constexpr,
    HARD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Write 2^((S - centre) / eps + f + g) scale, and the maximum of each tile's rows."""
    block = tl.program_id(0) % row_blocks
    column = tl.program_id(0) // row_blocks % column_blocks
    problem = (tl.program_id(0) // row_blocks // column_blocks).to(tl.int64)
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    i = block * BM + tl.arange(0, BM)
    j = column * BN + tl.arange(0, BN)
    inside = (i < n)[:, None] & (j < m)[None, :]
    at = S + problem * strides[0] * DIV + offsets(i, j, strides, AXIS, DIV)
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    centre = tl.load(centres + problem * m + j, mask=j < m, other=0.0)
    f_j = tl.load(f + problem * m + j, mask=j < m, other=-float("inf"))
    z = (x - centre[None, :]) * rate(inv_eps, problem) + f_j[None, :]
    here = problem * n + i
    g_i = tl.load(g + here, mask=i < n, other=0.0) if SOFT else 0.0
    scale = tl.load(scales + here, mask=i < n, other=0.0) if SOFT else 0.0
    put_tile(
        z, g_i, scale, i, j, n, m, problem, column, column_blocks, keep, codes, peaks, places,
        MASKED, SOFT, HARD,
    )  # fmt: skip


class Potentials(NamedTuple):
    """What iterations lead to.

    Attributes:
        f: Potential of the prototypes at their peak (B, K), to base 2.
        centres: Their peaks (B, K), in units of scores.
        tickets: Zeros by which the splits of a row count themselves, if there are any yet.
    """

    f: Tensor
    centres: Tensor
    tickets: Tensor | None


def iterate(
    S: Tensor, r: Tensor | None, inv_eps: Tensor | float, n_iter: int, keep: Tensor | None
) -> Potentials:
    """Return the potential of the prototypes, each half-step a read of its own."""
    B, N, K = S.shape
    f, centres = torch.empty(2, B, K, device=S.device)
    g = torch.empty(B, N, device=S.device)
    tickets = _tickets(S)
    scale = functools.partial(_scaled, inv_eps=inv_eps, keep=keep, tickets=tickets)
    scale(S.mT, g, centres, r, out=f, of=FIND)
    for _ in range(1, n_iter):
        scale(S, f, centres, None, out=g, of=OF_COLUMNS)
        scale(S.mT, g, centres, r, out=f, of=OF_ROWS)
    return Potentials(f, centres, tickets)


def samples(S: Tensor, at: Potentials, inv_eps: Tensor | float, keep: Tensor | None) -> Tensor:
    """Return potential and scale of the samples (2, B, n), which make each row's codes sum to one.

    Apart, since a scale has more digits than a logarithm.
    """
    g, scales = found = torch.empty(2, *S.shape[:2], device=S.device)
    tickets = _tickets(S) if at.tickets is None else at.tickets
    _scaled(
        S, at.f, at.centres, None, out=g, of=OF_COLUMNS, inv_eps=inv_eps, keep=keep,
        tickets=tickets, scales=scales,
    )  # fmt: skip
    return found


def _tickets(S: Tensor) -> Tensor:
    """Return zeros, at least one for each block of rows or of columns."""
    return torch.zeros(S.shape[0], max(S.shape[1:]), device=S.device, dtype=torch.int32)


def _scaled(
    S: Tensor, w: Tensor, centres: Tensor, weight: Tensor | None, *, out: Tensor, of: tl.constexpr,
    inv_eps: Tensor | float, keep: Tensor | None, tickets: Tensor, scales: Tensor | None = None,
) -> None:  # fmt: skip
    """Write what scales each row of S to its weight, against the potential w of the columns."""
    (B, n, m), (axis, div, strides, sizes) = S.shape, layout(S)
    tile = log_sum_tile(axis, n, m)
    blocks, splits, span = split(B, n, m, tile, multiprocessors(S.device))
    peaks, totals = torch.empty(2, B, splits, n, device=S.device)
    launch(
        _scale_rows, B * splits * blocks,
        S, w, centres, weight, inv_eps, out if keep is None else keep, tickets, peaks, totals, out,
        scales, *sizes, blocks, splits, span, strides,
        AXIS=axis, DIV=div, MASKED=keep is not None, CENTRES=of.value, **tile._asdict(), BS=8,
        **OPTIONS,
    )  # fmt: skip


def split(B: int, n: int, m: int, tile: LogSumTile, sms: int) -> tuple[int, int, int]:
    """Return how many blocks of rows there are, in how many parts each, and a part's tiles.

    Enough programs to fill the device twice over, none with less than a few tiles.
    """
    blocks, tiles = triton.cdiv(n, tile.BM), triton.cdiv(m, tile.BN)
    wanted = triton.cdiv(64 * sms // tile.num_warps, B * blocks)
    span = triton.cdiv(tiles, max(1, min(triton.cdiv(tiles, 4), wanted)))
    return blocks, triton.cdiv(tiles, span), span


def write(
    S: Tensor, at: Potentials, g: Tensor | None, inv_eps: Tensor | float, keep: Tensor | None,
    soft: torch.dtype | None, hard: bool,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Write the codes of all rows of S, at what `samples` returned if they are to be soft."""
    (B, n, m), (axis, div, strides, sizes) = S.shape, layout(S)
    codes, _ = outputs(S, n, soft, False)
    f = at.f
    g, scales = (f, f) if g is None else g
    BM, BN, warps = log_sum_tile(axis, n, m)
    grid = triton.cdiv(n, BM), triton.cdiv(m, BN)
    # a pointer that a constant switch leaves unread still has to be one
    peaks, places = f, f
    if hard:
        peaks = torch.empty(B, n, grid[1], device=S.device)
        places = torch.empty(B, n, grid[1], device=S.device, dtype=torch.int64)
    launch(
        _write_tiles, B * grid[0] * grid[1],
        S, f, at.centres, g, scales, inv_eps, f if keep is None else keep,
        f if codes is None else codes, peaks, places, *sizes, *grid, strides,
        AXIS=axis, DIV=div, MASKED=keep is not None, SOFT=codes is not None, HARD=hard, BM=BM,
        BN=BN, num_warps=warps, **OPTIONS,
    )  # fmt: skip
    return codes, places.gather(-1, peaks.argmax(-1, keepdim=True))[..., 0] if hard else None
