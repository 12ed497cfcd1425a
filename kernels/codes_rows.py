"""Codes whose samples stay on chip, row by row: all iterations and the codes in one launch.

The steps of a call, in order: the prototypes' first sums, over all samples; what answers them; for
each further iteration the samples' step with the prototypes' next sums, and the answer; last the
rows that are kept. Each reads S once and the answers read a vector from each program, so programs
have to meet between steps. Where all of them are resident they do so in one launch; elsewhere each
step is a launch of its own, of the same code. Potentials are to base 2.
"""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import OPTIONS, RowTile, is_amd, layout_of, multiprocessors, row_programs, row_tile
from .dense_sweep import _exponentials, _load_rows, _peaks
from .launch import launch
from .tiles import LOG2E, finite, merge


@triton.jit
def meet(counter, target):
    """Wait until all programs have come here: they have raised the counter to `target`."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="acq_rel", scope="gpu")
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < target:
        pass
    tl.debug_barrier()


@triton.jit
def rate(inv_eps, problem):
    """Return 1 / eps of a problem in base 2, given as one number for all or one for each."""
    found = tl.load(inv_eps + problem) if inv_eps.dtype.is_ptr() else inv_eps
    return found * LOG2E


@triton.jit
def counted(keep, problem, i, n, MASKED: tl.constexpr):
    """Return which samples there are and count."""
    kept = i < n
    if MASKED:
        kept = kept & (tl.load(keep + problem * n + i, mask=i < n, other=0).to(tl.int32) != 0)
    return kept


@triton.jit
def _columns(f, m, W: tl.constexpr, CHUNKS: tl.constexpr):
    """Return the potential of all columns, past what an earlier step left in caches."""
    fs = ()
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        f_j = tl.load(f + j, mask=j < m, other=-float("inf"), cache_modifier=".cg")
        fs = fs + (f_j,)  # type: ignore[assignment]
    return fs


@triton.jit
def _first(
    S, slope, keep, peaks, totals, problem, program, programs, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, BM: tl.constexpr,
    W: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Fold every P-th block of rows into a maximum and a sum of 2^(S / eps) for each column."""
    tops = ()
    sums = ()
    for _ in tl.static_range(CHUNKS):
        tops = tops + (tl.full([BM, W], -float("inf"), tl.float32),)  # type: ignore[assignment]
        sums = sums + (tl.zeros([BM, W], tl.float32),)  # type: ignore[assignment]
    rows = tl.arange(0, BM)
    for block in range(program, tl.cdiv(n, BM), programs):
        i = block * BM + rows
        kept = counted(keep, problem, i, n, MASKED)
        xs = _load_rows(S, i, n, m, strides, AXIS, DIV, W, CHUNKS)
        higher = ()
        more = ()
        for c in tl.static_range(CHUNKS):
            z = tl.where(kept[:, None], xs[c].to(tl.float32) * slope, -float("inf"))
            new = tl.maximum(tops[c], z)
            top = finite(new)
            more = more + (sums[c] * tl.exp2(tops[c] - top) + tl.exp2(z - top),)  # type: ignore[assignment]
            higher = higher + (new,)  # type: ignore[assignment]
        tops = higher
        sums = more
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        peak, total = merge(tops[c], sums[c], 0)
        tl.store(peaks + j, peak, mask=j < m)
        tl.store(totals + j, total, mask=j < m)


@triton.jit
def _sums(
    S, f, slope, keep, sums_of, problem, program, programs, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, BM: tl.constexpr,
    W: tl.constexpr, CHUNKS: tl.constexpr, PREFETCH: tl.constexpr,
):  # fmt: skip
    """Scale every P-th block of rows to one, and sum the columns into a vector of one's own."""
    fs = _columns(f, m, W, CHUNKS)
    sums = ()
    for _ in tl.static_range(CHUNKS):
        sums = sums + (tl.zeros([BM, W], tl.float32),)  # type: ignore[assignment]
    rows = tl.arange(0, BM)
    blocks = tl.cdiv(n, BM)
    if PREFETCH:
        ahead = _load_rows(S, program * BM + rows, n, m, strides, AXIS, DIV, W, CHUNKS)
    for block in range(program, blocks, programs):
        i = block * BM + rows
        if PREFETCH:
            xs = ahead
            after = tl.minimum(block + programs, blocks - 1) * BM + rows
            ahead = _load_rows(S, after, n, m, strides, AXIS, DIV, W, CHUNKS)
        else:
            xs = _load_rows(S, i, n, m, strides, AXIS, DIV, W, CHUNKS)
        kept = counted(keep, problem, i, n, MASKED)
        peak = _peaks(xs, fs, slope, CHUNKS)
        es, total = _exponentials(xs, fs, slope, -peak, CHUNKS)
        scale = tl.where(kept, 1.0 / total, 0.0)
        more = ()
        for c in tl.static_range(CHUNKS):
            more = more + (sums[c] + es[c] * scale[:, None],)  # type: ignore[assignment]
        sums = more
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        tl.store(sums_of + j, tl.sum(sums[c], 0), mask=j < m)


@triton.jit
def _answer(
    f, r, peaks, totals, program, programs, m,
    FIRST: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Answer what all programs summed, in every P-th block of columns."""
    for block in range(program, tl.cdiv(m, BN), programs):
        j = block * BN + tl.arange(0, BN)
        peak = tl.full([BN], -float("inf") if FIRST else 0.0, tl.float32)
        total = tl.zeros([BN], tl.float32)
        for p0 in range(0, programs, BP):
            p = p0 + tl.arange(0, BP)
            at = p[:, None] * m + j[None, :]
            inside = (p < programs)[:, None] & (j < m)[None, :]
            part = tl.load(totals + at, mask=inside, other=0.0, cache_modifier=".cg")
            if FIRST:
                top = tl.load(peaks + at, mask=inside, other=-float("inf"), cache_modifier=".cg")
                top, part = merge(top, part, 0)
                new = tl.maximum(peak, top)
                total = total * tl.exp2(peak - finite(new)) + part * tl.exp2(top - finite(new))
                peak = new
            else:
                total += tl.sum(part, 0)
        new = -(peak + tl.log2(total))
        if r is not None:
            new += tl.log2(tl.load(r + j, mask=j < m, other=1.0))
        if not FIRST:
            new += tl.load(f + j, mask=j < m, other=0.0, cache_modifier=".cg")
        tl.store(f + j, new, mask=j < m)


@triton.jit
def _write(
    S, f, slope, keep, codes, labels, problem, program, programs, n, m, begin, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, SOFT: tl.constexpr,
    HARD: tl.constexpr, BM: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Write the softmax of S / eps and f over rows from `begin` on, or its maximum's place."""
    fs = _columns(f, m, W, CHUNKS)
    codes += problem * (n - begin) * m
    labels += problem * (n - begin)
    for block in range(program, tl.cdiv(n - begin, BM), programs):
        here = block * BM + tl.arange(0, BM)
        i = begin + here
        kept = counted(keep, problem, i, n, MASKED)
        xs = _load_rows(S, i, n, m, strides, AXIS, DIV, W, CHUNKS)
        peak = _peaks(xs, fs, slope, CHUNKS)
        if SOFT:
            es, total = _exponentials(xs, fs, slope, -peak, CHUNKS)
            scale = tl.where(kept, 1.0 / total, 0.0)
            for c in tl.static_range(CHUNKS):
                j = c * W + tl.arange(0, W)
                at = codes + here.to(tl.int64)[:, None] * m + j[None, :]
                code = (es[c] * scale[:, None]).to(codes.dtype.element_ty)
                tl.store(at, code, mask=(i < n)[:, None] & (j < m)[None, :])
        if HARD:
            best = tl.full([BM, W], CHUNKS * W, tl.int32)
            for c in tl.static_range(CHUNKS):
                j = c * W + tl.arange(0, W)
                z = xs[c].to(tl.float32) * slope + fs[c][None, :]
                best = tl.where((z == peak[:, None]) & (best == CHUNKS * W), j[None, :], best)
            first = tl.min(best, 1)
            label = tl.where(kept & (first < m), first, -1)
            tl.store(labels + here, label.to(tl.int64), mask=i < n)


@triton.jit(do_not_specialize=["n", "m", "programs", "begin", "step", "until", "end"])
def _codes(
    S, f, r, inv_eps, keep, peaks, totals, met, codes, labels,
    n, m, programs, begin, step, until, end, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, SOFT: tl.constexpr,
    HARD: tl.constexpr, MEET: tl.constexpr, BM: tl.constexpr, W: tl.constexpr,
    CHUNKS: tl.constexpr, PREFETCH: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Take the steps from `step` to `until`; the one at `end` writes the codes."""
    program = tl.program_id(0) % programs
    problem = (tl.program_id(0) // programs).to(tl.int64)
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    S += problem * strides[0] * DIV
    f += problem * m
    if r is not None:
        r += problem * m
    peaks += problem * programs * m
    totals += problem * programs * m
    slope = rate(inv_eps, problem)
    for now in range(step, until):
        if now == end:
            _write(
                S, f, slope, keep, codes, labels, problem, program, programs, n, m, begin, strides,
                AXIS, DIV, MASKED, SOFT, HARD, BM, W, CHUNKS,
            )  # fmt: skip
        elif now == 0:
            _first(
                S, slope, keep, peaks + program * m, totals + program * m, problem, program,
                programs, n, m, strides, AXIS, DIV, MASKED, BM, W, CHUNKS,
            )  # fmt: skip
        elif now == 1:
            _answer(f, r, peaks, totals, program, programs, m, True, BP, BN)
        elif now % 2 == 1:
            _answer(f, r, peaks, totals, program, programs, m, False, BP, BN)
        else:
            _sums(
                S, f, slope, keep, totals + program * m, problem, program, programs, n, m, strides,
                AXIS, DIV, MASKED, BM, W, CHUNKS, PREFETCH,
            )  # fmt: skip
        if now + 1 < until:
            if MEET:
                meet(met + problem, (now - step + 1) * programs)
            else:
                tl.debug_barrier()


class Plan(NamedTuple):
    """How scores are shared out, and whether all programs fit on the device at once."""

    axis: int
    div: int
    strides: tuple[int, int, int]
    sizes: tuple[int, int]
    tile: RowTile
    programs: int
    resident: bool


def plan(S: Tensor) -> Plan | None:
    """Return how the rows of scores are held on chip, or None if they do not fit."""
    return _plan(S.shape, S.stride(), S.itemsize / 4, S.device)


@functools.lru_cache(1024)
def _plan(
    shape: tuple[int, int, int], stride: tuple[int, int, int], itemsize: int, device: torch.device
) -> Plan | None:
    B, n, m = shape
    axis, div, strides, sizes = layout_of(shape, stride)
    tile = row_tile(m, axis)
    if tile is None:
        return None
    sms = multiprocessors(device)
    # each warp may take all the registers that an eighth of a multiprocessor has
    most = max(1, 8 // tile.num_warps) * sms
    programs = row_programs(n, itemsize / 4, -(-n // tile.BM), tile.num_warps, 1, sms)
    programs = max(1, min(programs, most // B))
    # the only program of a problem waits for nobody
    resident = programs == 1 or meets(device)
    return Plan(axis, div, strides, sizes, tile, programs, resident)


def meets(device: torch.device) -> bool:
    """Say whether programs run side by side there, in a grid that is promised to be resident."""
    return device.type != "cpu" and not is_amd(device)


def iterate(
    S: Tensor, r: Tensor | None, inv_eps: Tensor | float, n_iter: int, keep: Tensor | None,
    last: int = 0, soft: torch.dtype | None = None, hard: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """Return the prototypes' potential after `n_iter` iterations, and the codes of `last` rows.

    Arguments as in `codes.solve` and `codes.write`; S must have a `plan`.
    """
    how = plan(S)
    assert how is not None
    (B, n, m), P = S.shape, how.programs
    f, part = _empty(S, B, m), _empty(S, 2, B, P, m)
    codes, labels = outputs(S, last, soft, hard)
    end = 2 * n_iter
    steps = end + (last > 0)
    once = how.resident and steps > 1
    met = torch.zeros(B, device=S.device, dtype=torch.int32) if once and P > 1 else None
    for step in range(0, steps, steps if once else 1):
        _run(
            how, S, f, r, inv_eps, keep, part, met, codes, labels, n - last,
            (step, steps if once else step + 1, end), P,
        )  # fmt: skip
    return f, codes, labels


def write(
    S: Tensor, f: Tensor, inv_eps: Tensor | float, keep: Tensor | None,
    soft: torch.dtype | None, hard: bool,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Write the codes of all rows of S, at the potential f of the prototypes."""
    how = plan(S)
    assert how is not None
    codes, labels = outputs(S, S.shape[1], soft, hard)
    # nothing is carried from row to row, so each block has a program of its own
    blocks = -(-S.shape[1] // how.tile.BM)
    _run(how, S, f, None, inv_eps, keep, f, None, codes, labels, 0, (0, 1, 0), blocks)
    return codes, labels


def _run(  # noqa: PLR0913
    how: Plan, S: Tensor, f: Tensor, r: Tensor | None, inv_eps: Tensor | float,
    keep: Tensor | None, part: Tensor, met: Tensor | None, codes: Tensor | None,
    labels: Tensor | None, begin: int, steps: tuple[int, int, int], programs: int,
) -> None:  # fmt: skip
    tile = how.tile
    together = {} if met is None else {"launch_cooperative_grid": True}
    # a pointer that a constant switch leaves unread still has to be one
    launch(
        _codes, S.shape[0] * programs, S, f, r, inv_eps, f if keep is None else keep, part[0],
        part[-1], f if met is None else met, f if codes is None else codes,
        f if labels is None else labels, *how.sizes, programs, begin, *steps, how.strides,
        AXIS=how.axis, DIV=how.div, MASKED=keep is not None, SOFT=codes is not None,
        HARD=labels is not None, MEET=met is not None, BM=tile.BM, W=tile.W, CHUNKS=tile.CHUNKS,
        PREFETCH=tile.PREFETCH, BP=32, BN=64, num_warps=tile.num_warps, **together, **OPTIONS,
    )  # fmt: skip


def outputs(
    S: Tensor, rows: int, soft: torch.dtype | None, hard: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return room for soft codes (B, rows, K) and for labels (B, rows), as asked for."""
    B, _, m = S.shape
    codes = None if soft is None or not rows else _empty(S, B, rows, m, dtype=soft)
    labels = _empty(S, B, rows, dtype=torch.int64) if hard and rows else None
    return codes, labels


def _empty(like: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device=like.device, dtype=dtype)
