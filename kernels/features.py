"""Balanced codes from features and prototypes: the scores are made on chip and never stored.

The plan is `Q_ik = exp(<z_i, c_k> / eps + f_k + g_i)`, a point-cloud plan under "dot" whose rows
are the samples. Every half-step makes the products again, so `n_iter` iterations take 2 n_iter - 1
passes over all samples, then two over the rows that are kept; what it saves is to write the scores,
to read them n_iter times, and to have room for them.

Bound per entry and pass: 3 d multiply-adds of tensor cores, one exp2, no memory traffic.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .clouds import MAX_DIRECT, Clouds, hold, last, pairs, place, slope
from .codes_tiles import put_tile
from .configs import OPTIONS
from .launch import launch
from .point_cloud import log_sum_rows, move_rows, tiles
from .tiles import LOG2E


@triton.jit
def _write_products(
    rows, columns, f, g, inv_eps, keep, codes, peaks, places, row_blocks, column_blocks,
    MASKED: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr, KIND: tl.constexpr,
    D: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """Write exp(<z, c> / eps + f + g) tile by tile, and the maximum of each tile's rows."""
    block = tl.program_id(0) % row_blocks
    column = tl.program_id(0) // row_blocks % column_blocks
    problem = (tl.program_id(0) // row_blocks // column_blocks).to(tl.int64)
    i = block * BM + tl.arange(0, BM)
    j = column * BN + tl.arange(0, BN)
    c = tl.load(inv_eps + problem) * LOG2E
    held = hold(rows, problem, i, KIND, D, CHUNK)
    f_j = tl.load(f + problem * columns.size + j, mask=j < columns.size, other=-float("inf"))
    z = pairs(rows, columns, problem, i, j, held, KIND, D, CHUNK, PRECISION)
    z = z * slope(rows, columns, problem, c, KIND) + f_j[None, :] * LOG2E
    here = problem * rows.size + i
    g_i = tl.load(g + here, mask=i < rows.size, other=0.0) * LOG2E if SOFT else 0.0
    put_tile(
        z, g_i, tl.full(i.shape, 1.0, tl.float32), i, j, rows.size, columns.size, problem, column,
        column_blocks, keep, codes, peaks, places, MASKED, SOFT, HARD,
    )  # fmt: skip


def place_features(z: Tensor, prototypes: Tensor) -> Clouds:
    """Return features (B, N, D) and prototypes (1 or B, K, D) as the kernels read them."""
    narrow = max(0, MAX_DIRECT + 1 - z.shape[-1])
    z, prototypes = (torch.nn.functional.pad(t, (0, narrow)) for t in (z, prototypes))
    return place(z, prototypes, metric="dot")


def log_masses(clouds: Clouds, g: Tensor, inv_eps: Tensor, guess: Tensor | None = None) -> Tensor:
    """Return log sum_i exp(<z_i, c_k> / eps + g_i), shape (B, K).

    This is what ranks that share the samples join, by its maximum and the sum of exponentials.

    Args:
        clouds: What `place_features` returned.
        g: Potential of the samples (B, N), float32; -inf for one that does not count.
        inv_eps: 1 / eps of each problem (B,), float32.
        guess: Roughly the result, such as that of the last iteration.
    """
    return log_sum_rows(clouds.swapped(), g, inv_eps, guess=guess)


def solve(
    clouds: Clouds, r: Tensor, inv_eps: Tensor, n_iter: int = 3, keep: Tensor | None = None
) -> Tensor:
    """Return the prototypes' potential f (B, K) that `n_iter` iterations lead to.

    The last step of the samples is left to `write`.

    Args:
        clouds: What `place_features` returned.
        r: Weights of the prototypes (B, K), float32.
        inv_eps: 1 / eps of each problem (B,), float32.
        n_iter: Iterations, prototypes first.
        keep: Samples that count (B, N), bool; None for all.
    """
    a = torch.ones(len(r), clouds.rows.size, device=r.device)
    a = a if keep is None else torch.where(keep, a, 0.0)
    g = a.log()
    f = move_rows(clouds.swapped(), None, g, r, inv_eps)
    for k in range(1, n_iter):
        g = move_rows(clouds, None if k == 1 else g, f, a, inv_eps)
        f = move_rows(clouds.swapped(), f, g, r, inv_eps)
    return f


def write(
    clouds: Clouds, f: Tensor, inv_eps: Tensor, rows: int, *,
    soft: torch.dtype | None = torch.float32, hard: bool = False, keep: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Take the last step of the last `rows` samples, and write their codes.

    Args:
        clouds: What `place_features` returned, for all samples.
        f: Potential of the prototypes (B, K), float32.
        inv_eps: 1 / eps of each problem (B,), float32.
        rows: How many samples get a code.
        soft: Dtype of the soft codes; None for none.
        hard: Whether to write labels, the first of the largest entries of a row.
        keep: Samples that count (B, rows), bool; others get a code of zeros and the label -1.

    Returns:
        Soft codes (B, rows, K), whose rows sum to one, or None; labels (B, rows) int64, or None.
    """
    clouds = last(clouds, rows)
    B, K = f.shape
    # few rows and no loop: small tiles for many programs
    BM, BN, CHUNK, warps, _ = tiles(clouds, f.device)._replace(BM=64, warps=4)
    grid = triton.cdiv(rows, BM), triton.cdiv(K, BN)
    g = inv_eps if soft is None else -log_sum_rows(clouds, f, inv_eps)
    codes = None if soft is None else torch.empty(B, rows, K, device=f.device, dtype=soft)
    peaks = torch.empty(B, rows, grid[1], device=f.device)
    places = torch.empty(B, rows, grid[1], device=f.device, dtype=torch.int64)
    # a pointer that a constant switch leaves unread still has to be one
    unread = inv_eps
    launch(
        _write_products, B * grid[0] * grid[1],
        clouds.rows, clouds.columns, f.contiguous(), g, inv_eps,
        unread if keep is None else keep.contiguous(), unread if codes is None else codes,
        peaks, places, *grid, MASKED=keep is not None, SOFT=soft is not None, HARD=hard,
        KIND=clouds.kind, D=clouds.width, CHUNK=CHUNK, PRECISION=clouds.precision, BM=BM, BN=BN,
        num_warps=warps, **OPTIONS,
    )  # fmt: skip
    return codes, places.gather(-1, peaks.argmax(-1, keepdim=True))[..., 0] if hard else None
