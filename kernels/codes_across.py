"""Codes of rows too long for the chip over few samples: prototypes are scaled whole.

All samples of a prototype stay on chip, so that one read is an iteration: it scales each prototype
to its weight and sums what it gives the samples, and a small launch answers these. A sample may be
left with next to no mass, and is then summed again there.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .codes_steps import counted, rate
from .codes_tiles import Potentials
from .configs import OPTIONS, layout, multiprocessors, power_of_two, row_programs, row_tile
from .dense_sweep import _exponentials, _next_rows, _peaks, _rows_ahead
from .launch import launch
from .tiles import TINY, fold, offsets


@triton.jit
def _centred(xs, centre, CHUNKS: tl.constexpr):
    """Return rows in chunks, each less its own number."""
    found = ()
    for c in tl.static_range(CHUNKS):
        found = found + (xs[c].to(tl.float32) - centre[:, None],)  # type: ignore[assignment]
    return found


@triton.jit(do_not_specialize=["n", "m", "programs"])
def _scale_prototypes(  # noqa: PLR0915
    S, f, centres, g, r, inv_eps, keep, part, n, m, programs, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, FIRST: tl.constexpr,
    BM: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr, PREFETCH: tl.constexpr,
):  # fmt: skip
    """Scale every P-th block of prototypes, the rows of S, and sum what each gives the samples."""
    program = tl.program_id(0) % programs
    problem = (tl.program_id(0) // programs).to(tl.int64)
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    S += problem * strides[0] * DIV
    slope = rate(inv_eps, problem)
    gs = ()
    sums = ()
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        if FIRST:
            g_j = tl.where(counted(keep, problem, j, m, MASKED), 0.0, -float("inf"))
        else:
            g_j = tl.load(g + problem * m + j, mask=j < m, other=-float("inf"))
        gs = gs + (g_j,)  # type: ignore[assignment]
        sums = sums + (tl.zeros([BM, W], tl.float32),)  # type: ignore[assignment]
    rows = tl.arange(0, BM)
    blocks = tl.cdiv(n, BM)
    ahead = _rows_ahead(S, program * BM + rows, n, m, strides, AXIS, DIV, W, CHUNKS, PREFETCH)
    for block in range(program, blocks, programs):
        i = block * BM + rows
        here = problem * n + i
        after = tl.minimum(block + programs, blocks - 1) * BM + rows
        xs, ahead = _next_rows(S, ahead, i, after, n, m, strides, AXIS, DIV, W, CHUNKS, PREFETCH)
        if FIRST:
            # a potential of 0 or -inf: the peak of the samples that count
            centre = _peaks(xs, gs, 1.0, CHUNKS)
            tl.store(centres + here, centre, mask=i < n)
        else:
            centre = tl.load(centres + here, mask=i < n, other=0.0)
        ds = _centred(xs, centre, CHUNKS)
        peak = _peaks(ds, gs, slope, CHUNKS)
        es, total = _exponentials(ds, gs, slope, -peak, CHUNKS)
        share = 1.0 if r is None else tl.load(r + here, mask=i < n, other=0.0)
        # without a sample that counts there is nothing to share out
        scale = tl.where((i < n) & (total != 0), share / total, 0.0)
        tl.store(f + here, tl.log2(scale) - peak, mask=i < n)
        more = ()
        for c in tl.static_range(CHUNKS):
            more = more + (sums[c] + es[c] * scale[:, None],)  # type: ignore[assignment]
        sums = more
    mine = part + tl.program_id(0).to(tl.int64) * m
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        tl.store(mine + j, tl.sum(sums[c], 0), mask=j < m)


@triton.jit(do_not_specialize=["n", "m", "programs", "blocks"])
def _scale_samples(
    S, f, centres, g, scales, inv_eps, keep, part, n, m, programs, blocks, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, FIRST: tl.constexpr,
    BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Scale a block of samples, the columns of S, to one, by what the prototypes give them."""
    block = tl.program_id(0) % blocks
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    j = block * BN + tl.arange(0, BN)
    total = tl.zeros([BN], tl.float32)
    for p0 in range(0, programs, BP):
        p = p0 + tl.arange(0, BP)
        at = part + (problem * programs + p)[:, None] * m + j[None, :]
        inside = (p < programs)[:, None] & (j < m)[None, :]
        total += tl.sum(tl.load(at, mask=inside, other=0.0), 0)
    kept = counted(keep, problem, j, m, MASKED)
    old = tl.zeros([BN], tl.float32)
    if not FIRST:
        old = tl.load(g + problem * m + j, mask=j < m, other=0.0)
    # in the end a scale, which has more digits than the potential
    new = old - tl.log2(total) if scales is None else old
    scale = 1.0 / total
    lost = kept & ~(total > TINY)
    if tl.max(lost.to(tl.int32), 0) > 0:
        S += problem * strides[0] * DIV
        slope = rate(inv_eps, problem)
        peak = tl.full([BN], -float("inf"), tl.float32)
        total = tl.zeros([BN], tl.float32)
        for i0 in range(0, n, BP):
            i = i0 + tl.arange(0, BP)
            inside = (i < n)[:, None] & lost[None, :]
            x = tl.load(S + offsets(i, j, strides, AXIS, DIV), mask=inside, other=0.0)
            centre = tl.load(centres + problem * n + i, mask=i < n, other=0.0)
            f_i = tl.load(f + problem * n + i, mask=i < n, other=-float("inf"))
            z = (x.to(tl.float32) - centre[:, None]) * slope + f_i[:, None]
            peak, total = fold(peak, total, z, 0)
        new = tl.where(lost, -peak if scales is not None else -(peak + tl.log2(total)), new)
        scale = tl.where(lost, 1.0 / total, scale)
    if scales is not None:
        tl.store(scales + problem * m + j, scale, mask=j < m)
    tl.store(g + problem * m + j, tl.where(kept, new, -float("inf")), mask=j < m)


def fits(S: Tensor) -> bool:
    """Say whether all samples of a prototype fit on chip."""
    return row_tile(S.shape[1], layout(S.mT).axis) is not None


def iterate(
    S: Tensor, r: Tensor | None, inv_eps: Tensor | float, n_iter: int, keep: Tensor | None
) -> tuple[Potentials, Tensor]:
    """Return the prototypes' potential, and what `codes_tiles.samples` would return for it."""
    (B, N, K), (axis, div, strides, sizes) = S.shape, layout(S.mT)
    tile = row_tile(N, axis)
    assert tile is not None
    sms = multiprocessors(S.device)
    P = row_programs(K, S.itemsize / 4, triton.cdiv(K, tile.BM), tile.num_warps, B, sms)
    f, centres = torch.empty(2, B, K, device=S.device)
    g, scales = found = torch.empty(2, B, N, device=S.device)
    part = torch.empty(B, P, N, device=S.device)
    # a few columns for many programs, as many partial sums as fill a warp's registers
    BN = 8
    BP, blocks = min(512, power_of_two(P)), triton.cdiv(N, BN)
    mask = f if keep is None else keep
    for k in range(n_iter):
        kept = scales if k == n_iter - 1 else None
        switches = dict(AXIS=axis, DIV=div, MASKED=keep is not None, FIRST=k == 0, **OPTIONS)
        launch(
            _scale_prototypes, B * P, S, f, centres, g, r, inv_eps, mask, part, *sizes, P, strides,
            **switches, **tile._asdict(),
        )  # fmt: skip
        launch(
            _scale_samples, B * blocks, S, f, centres, g, kept, inv_eps, mask,
            part, *sizes, P, blocks, strides, **switches, BP=BP, BN=BN, num_warps=4,
        )  # fmt: skip
    return Potentials(f, centres, None), found
