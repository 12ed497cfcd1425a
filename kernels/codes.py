"""Balanced codes from scores: the iterations of SwAV and its relatives, and the rows they keep.

The plan is `Q_ik = exp(S_ik / eps + f_k + g_i)`, whose rows are the samples, of weight one, and
whose columns are the prototypes, of weight r. The first prototype step reads S once, each further
step reads it once (samples and next prototypes together), and the last step of the samples reads
and writes only the rows that are kept. Where rows stay on chip all of that is `codes_rows`.

The sums of a prototype need no rescue: after its own step a row holds at most all mass, which is
one, so making it one only raises what the prototypes hold.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import codes_rows
from .configs import OPTIONS, layout, log_sum_tile, row_tile
from .dense_sweep import sweep
from .launch import launch
from .log_sums import log_sum_rows, move_rows
from .tiles import LOG2E, offsets


@triton.jit
def put_tile(
    z, i, j, n, m, problem, column, column_blocks, g, keep, codes, peaks, places,
    MASKED: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    """Write the codes 2^(z + g) of a tile, and the maximum of each of its rows."""
    kept = i < n
    if MASKED:
        kept = kept & (tl.load(keep + problem * n + i, mask=i < n, other=0).to(tl.int32) != 0)
    if SOFT:
        g_i = tl.load(g + problem * n + i, mask=i < n, other=0.0) * LOG2E
        code = tl.where(kept[:, None], tl.exp2(z + g_i[:, None]), 0.0)
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
    S, f, g, inv_eps, keep, codes, peaks, places, n, m, row_blocks, column_blocks, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, SOFT: tl.constexpr,
    HARD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Write exp(S / eps + f + g) tile by tile, and the maximum of each tile's rows."""
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
    f_j = tl.load(f + problem * m + j, mask=j < m, other=-float("inf")) * LOG2E
    z = x * (tl.load(inv_eps + problem) * LOG2E) + f_j[None, :]
    put_tile(
        z, i, j, n, m, problem, column, column_blocks, g, keep, codes, peaks, places,
        MASKED, SOFT, HARD,
    )  # fmt: skip


def solve(
    S: Tensor, r: Tensor | None, inv_eps: Tensor | float, n_iter: int = 3,
    keep: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the prototypes' potential f (B, K), to base 2, that `n_iter` iterations lead to.

    The last step of the samples is left to `write`.

    Args:
        S: Scores (B, N, K), any strides, float32, float16 or bfloat16.
        r: Weights of the prototypes (B, K), float32; None for one each.
        inv_eps: 1 / eps, of all problems or of each (B,), float32.
        n_iter: Iterations, prototypes first.
        keep: Samples that count (B, N), bool; None for all.
    """
    keep = None if keep is None else keep.contiguous()
    if codes_rows.plan(S) is not None:
        return codes_rows.iterate(S, r, inv_eps, n_iter, keep)[0]
    B, N, K = S.shape
    r = torch.ones(B, K, device=S.device) if r is None else r
    minus = -per_problem(inv_eps, S)
    if row_tile(N, layout(S.mT).axis):
        return _solve_across(S, r, minus, n_iter, keep) / math.log(2)
    f = move_rows(S.mT, start(S, keep), r, minus)
    g, s, a = start(S, keep), torch.empty_like(f), weights(S, keep)
    for _ in range(1, n_iter):
        # no row holds more than all mass yet, so 0 keeps its first sum in range as well
        sweep(S, g, f, a, minus, out=(g, s), move=(r, f))
    return f / math.log(2)


def per_problem(inv_eps: Tensor | float, S: Tensor) -> Tensor:
    """Return 1 / eps of each problem, (B,)."""
    if isinstance(inv_eps, Tensor):
        return inv_eps
    return torch.full((len(S),), inv_eps, device=S.device)


def start(S: Tensor, keep: Tensor | None) -> Tensor:
    """Return the samples' first potential: 0, or -inf for one that does not count."""
    B, N, _ = S.shape
    g = torch.zeros(B, N, device=S.device)
    return g if keep is None else g.masked_fill(~keep, -torch.inf)


def weights(S: Tensor, keep: Tensor | None) -> Tensor:
    """Return the samples' weights: 1, or 0 for one that does not count."""
    B, N, _ = S.shape
    return torch.ones(B, N, device=S.device) if keep is None else keep.to(torch.float32)


def _solve_across(S: Tensor, r: Tensor, minus: Tensor, n_iter: int, keep: Tensor | None) -> Tensor:
    """Solve with the roles swapped, for rows too long and columns short enough to stay on chip.

    A sweep over the transpose moves the prototypes and sums the samples, so one read is a whole
    iteration. A sample may be left with next to no mass, and is then summed again.
    """
    g, a = start(S, keep), weights(S, keep)
    f, s = torch.empty_like(r), torch.empty_like(g)
    for k in range(n_iter):
        sweep(S.mT, f, g, r, minus, first=k == 0, out=(f, s), move=(a, g))
        if k < n_iter - 1:
            lost = (a > 0) & ~(s > 1e-30)
            g = torch.where(lost, -log_sum_rows(S, f, minus, only=lost), g)
    return f


def write(
    S: Tensor, f: Tensor, inv_eps: Tensor | float, *, soft: torch.dtype | None = torch.float32,
    hard: bool = False, keep: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Take the samples' last step, and write the codes exp(S / eps + f + g) of all rows of S.

    Args:
        S: Scores of the samples to be written (B, n, K); a slice of the rows that were swept.
        f: Potential of the prototypes (B, K), to base 2, float32.
        inv_eps: 1 / eps, of all problems or of each (B,), float32.
        soft: Dtype of the soft codes; None for none.
        hard: Whether to write labels, the first of the largest entries of a row.
        keep: Samples that count (B, n), bool; others get a code of zeros and the label -1.

    Returns:
        Soft codes (B, n, K), whose rows sum to one, or None; labels (B, n) int64, or None.
    """
    keep = None if keep is None else keep.contiguous()
    if codes_rows.plan(S) is not None:
        return codes_rows.write(S, f.contiguous(), inv_eps, keep, soft, hard)
    return _write_long(S, f * math.log(2), per_problem(inv_eps, S), soft, hard, keep)


def codes(
    S: Tensor, r: Tensor | None, inv_eps: Tensor | float, n_iter: int, last: int, *,
    soft: torch.dtype | None = torch.float32, hard: bool = False, keep: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Return what `write` makes of the last rows after `solve`, in one launch where rows fit."""
    keep = None if keep is None else keep.contiguous()
    if codes_rows.plan(S) is not None:
        return codes_rows.iterate(S, r, inv_eps, n_iter, keep, last, soft, hard)[1:]
    f = solve(S, r, inv_eps, n_iter, keep)
    at = S.shape[1] - last
    kept = None if keep is None else keep[:, at:]
    return write(S[:, at:], f, inv_eps, soft=soft, hard=hard, keep=kept)


def _write_long(
    S: Tensor, f: Tensor, inv_eps: Tensor, soft: torch.dtype | None, hard: bool,
    keep: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    B, n, m = S.shape
    axis, div, strides, sizes = layout(S)
    codes = None if soft is None else torch.empty(B, n, m, device=S.device, dtype=soft)
    switches = dict(AXIS=axis, DIV=div, MASKED=keep is not None, SOFT=soft is not None, HARD=hard)
    unread = inv_eps
    mask = unread if keep is None else keep
    g = -log_sum_rows(S, f, -inv_eps) if soft is not None else unread
    BM, BN, warps = log_sum_tile(axis, n, m)
    grid = triton.cdiv(n, BM), triton.cdiv(m, BN)
    peaks = torch.empty(B, n, grid[1], device=S.device)
    places = torch.empty(B, n, grid[1], device=S.device, dtype=torch.int64)
    launch(
        _write_tiles, B * grid[0] * grid[1],
        S, f, g, inv_eps, mask, unread if codes is None else codes, peaks, places, *sizes, *grid,
        strides, BM=BM, BN=BN, num_warps=warps, **switches, **OPTIONS,
    )  # fmt: skip
    return codes, places.gather(-1, peaks.argmax(-1, keepdim=True))[..., 0] if hard else None
