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

from .codes_steps import answer, first_sums, rate, sums_of_rows, write_rows
from .configs import (
    OPTIONS,
    RowTile,
    all_registers,
    capability,
    layout_of,
    meets,
    multiprocessors,
    power_of_two,
    row_tile,
)
from .launch import launch
from .whole_steps import meet


# vectors of sums that are read at once: all there are on today's devices, so as to wait once; the
# longest rows leave no registers for that
_PARTS, _FEW_PARTS = 256, 64


@triton.jit(do_not_specialize=["n", "m", "programs", "begin", "step", "until", "end"])
def _codes(  # noqa: C901
    S, f, g, r, inv_eps, keep, part, met, codes, labels,
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
    if g is not None:
        g += problem * n
    if r is not None:
        r += problem * m
    # a maximum and a sum of each program and column
    peaks = part + problem * programs * m
    totals = peaks + tl.num_programs(0).to(tl.int64) * m
    slope = rate(inv_eps, problem)
    for now in range(step, until):
        if now == end:
            write_rows(
                S, f, g, slope, keep, codes, labels, problem, program, programs, n, m, begin, now,
                strides, AXIS, DIV, MASKED, SOFT, HARD, BM, W, CHUNKS, PREFETCH,
            )  # fmt: skip
        elif now == 0:
            first_sums(
                S, slope, keep, peaks + program * m, totals + program * m, problem, program,
                programs, n, m, strides, AXIS, DIV, MASKED, BM, W, CHUNKS, PREFETCH,
            )  # fmt: skip
        elif now == 1:
            answer(f, r, peaks, totals, program, programs, m, True, BP, BN)
        elif now % 2 == 1:
            answer(f, r, peaks, totals, program, programs, m, False, BP, BN)
        elif g is not None:
            sums_of_rows(
                S, f, g, slope, keep, totals + program * m, problem, program, programs, n, m, now,
                strides, AXIS, DIV, MASKED, BM, W, CHUNKS, PREFETCH,
            )  # fmt: skip
        if now + 1 < until:
            if MEET:
                meet(met, now - step + 1)
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
    return _plan(S.shape, S.stride(), S.device)


def forget() -> None:
    """Forget every plan: what a device name stands for has changed."""
    _plan.cache_clear()


@functools.lru_cache(1024)
def _plan(
    shape: tuple[int, int, int], stride: tuple[int, int, int], device: torch.device
) -> Plan | None:
    B, n, m = shape
    axis, div, strides, sizes = layout_of(shape, stride)
    tile = row_tile(m, axis)
    old = 0 < capability(device) < 9
    if tile is None or (old and not tile.PREFETCH):
        # where the longest rows spill
        return None
    share = max(1, multiprocessors(device) // B)
    if tile.PREFETCH:
        # one fat program for each multiprocessor: barriers cost least where few meet
        wide = tile.BM * 8 // tile.num_warps
        # where more is spilled, and in the interpreter
        wide = max(1, wide // 2) if old or device.type == "cpu" else wide
        few = power_of_two(-(-n // share), 1 if axis == 1 else 8)
        tile = tile._replace(BM=min(wide, few), num_warps=8)
    programs = max(1, min(share, -(-n // tile.BM)))
    # the only program of a problem waits for nobody
    resident = programs == 1 or meets(device)
    return Plan(axis, div, strides, sizes, tile, programs, resident)


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
    # the last step needs none of one iteration
    g = None if n_iter == 1 else _empty(S, B, n)
    # the longest rows have no registers for both
    later = hard and soft is not None and not how.tile.PREFETCH
    codes, labels = outputs(S, last, soft, hard and not later)
    end = 2 * n_iter
    steps = end + (last > 0)
    once = how.resident and steps > 1
    met = torch.zeros(1, device=S.device, dtype=torch.int32) if once and P > 1 else None
    for step in range(0, steps, steps if once else 1):
        _run(
            how, S, f, g, r, inv_eps, keep, part, met, codes, labels, n - last,
            (step, steps if once else step + 1, end), P,
        )  # fmt: skip
    if later:
        kept = None if keep is None else keep[:, n - last :].contiguous()
        labels = write(S[:, n - last :], f, inv_eps, kept, None, True)[1]
    return f, codes, labels


def write(
    S: Tensor, f: Tensor, inv_eps: Tensor | float, keep: Tensor | None,
    soft: torch.dtype | None, hard: bool,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Write the codes of all rows of S, at the potential f of the prototypes."""
    how = plan(S)
    assert how is not None
    if soft is not None and hard and not how.tile.PREFETCH:
        # the longest rows have no registers for both
        return write(S, f, inv_eps, keep, soft, False)[0], write(S, f, inv_eps, keep, None, True)[1]
    codes, labels = outputs(S, S.shape[1], soft, hard)
    # nothing is carried from row to row, so each block has a program of its own
    blocks = -(-S.shape[1] // how.tile.BM)
    _run(how, S, f, None, None, inv_eps, keep, f, None, codes, labels, 0, (0, 1, 0), blocks)
    return codes, labels


def _run(  # noqa: PLR0913
    how: Plan, S: Tensor, f: Tensor, g: Tensor | None, r: Tensor | None, inv_eps: Tensor | float,
    keep: Tensor | None, part: Tensor, met: Tensor | None, codes: Tensor | None,
    labels: Tensor | None, begin: int, steps: tuple[int, int, int], programs: int,
) -> None:  # fmt: skip
    tile = how.tile
    together = {} if met is None else {"launch_cooperative_grid": True}
    # what writes nothing is the same code, which does not come to its last step
    soft = codes is not None or labels is None
    parts = _PARTS if tile.PREFETCH else _FEW_PARTS
    # a pointer that a constant switch leaves unread still has to be one
    launch(
        _codes, S.shape[0] * programs, S, f, g, r, inv_eps, f if keep is None else keep, part,
        f if met is None else met, f if codes is None else codes,
        f if labels is None else labels, *how.sizes, programs, begin, *steps, how.strides,
        AXIS=how.axis, DIV=how.div, MASKED=keep is not None, SOFT=soft,
        HARD=labels is not None, MEET=met is not None, BM=tile.BM, W=tile.W, CHUNKS=tile.CHUNKS,
        PREFETCH=tile.PREFETCH, BP=parts, BN=32, num_warps=tile.num_warps, **together,
        **all_registers(S.device, tile.num_warps), **OPTIONS,
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
