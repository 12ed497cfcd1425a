"""Sums of exponentials over clouds of points: the cost is made on chip and never stored.

One kernel keeps a block of points and streams the other side past it. A sweep runs it twice, rows
then columns, with the two clouds changing places. Two products and two exponentials per entry and
iteration are the price of exactness in O(n + m) memory: an entry may enter a column sum only after
its row potential has moved, which needs the whole row, and by then the row's first entries are gone
unless n m of them are stored.

Bound per entry and pass: no memory traffic; one exp2, which a multiprocessor of compute capability
8 to 10 makes 16 of in a cycle; up to 8 coordinates 2 d + 5 instructions of 128 in a cycle, so d = 2
runs at the rate of both; beyond, 3 d multiply-adds of tensor cores, 2048 in a cycle on Hopper, so
they are the limit from d = 43. Points come from the L2 cache, 4 d / BM bytes of them.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .clouds import Clouds, hold, own_cost, pairs, slope
from .configs import OPTIONS, all_registers, capability, is_amd, multiprocessors, power_of_two
from .near import Live, met
from .tiles import LN2, LOG2E, exp2, finite, fold, in_range, merge


@triton.jit
def _stream(
    rows, columns, v, batch, i, start, stop, c, lift, live, block,
    ONLINE: tl.constexpr, KIND: tl.constexpr, D: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr, BN: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Sum 2^(exponent - lift) over the columns start:stop; `ONLINE` finds the lift as it goes.

    Where some columns count for a block of rows, these are places along them.
    """
    BM: tl.constexpr = i.shape[0]
    # the axis that is summed: see `pairs`
    AXIS: tl.constexpr = 1 if KIND == "matrix" else 0
    held = hold(rows, batch, i, KIND, D, CHUNK)
    factor = slope(rows, columns, batch, c, KIND)
    total = tl.zeros([BM], v.dtype.element_ty)
    if ONLINE:
        lift = tl.full([BM], -float("inf"), v.dtype.element_ty)
    end = stop
    if live is not None:
        end = columns.size
    for j0 in tl.range(start, stop, BN, num_stages=2):
        j = met(live, block, j0, SIZE) + tl.arange(0, BN)
        w = tl.load(v + batch * columns.size + j, mask=j < end, other=-float("inf")) * LOG2E
        w = tl.expand_dims(w - own_cost(columns, batch, j, c), 1 - AXIS)
        z = pairs(rows, columns, batch, i, j, held, KIND, D, CHUNK, PRECISION) * factor
        if ONLINE:
            lift, total = fold(lift, total, z + w, AXIS)
        elif KIND == "matrix":
            total += tl.sum(exp2(z + (w - lift[:, None])), 1)
        else:
            total += tl.sum(exp2(z + (w - lift[None, :])), 0)
    return lift, total


@triton.jit
def _guess(own, weight, at, inside, MODE: tl.constexpr):
    """Return what log2 of a sum should be, from the last iteration, and which sums matter.

    A row that has its marginal obeys u = log a - L, so its guess is log a - u. A column's is -v,
    which makes its sum the mass that it receives.
    """
    if MODE == "log":
        return tl.load(own + at, mask=inside, other=0.0) * LOG2E, inside
    u = tl.load(own + at, mask=inside, other=-float("inf"))
    wanted = inside & (u > -float("inf"))
    guess = -u * LOG2E
    if MODE == "row":
        a = tl.load(weight + at, mask=inside, other=0.0)
        wanted = inside & (a > 0)
        guess += tl.log2(tl.where(a > 0, a, 1.0))
    return tl.where(wanted, guess, 0.0), wanted


@triton.jit
def _answer(own, weight, kappa, batch, at, inside, log_sum, MODE: tl.constexpr):
    """Return the logarithm of a sum, the potential that answers it, or the mass of a column."""
    if MODE == "row":
        a = tl.load(weight + at, mask=inside, other=0.0)
        if kappa is not None:
            elastic = tl.load(kappa + batch)
            # a free row keeps its weight, whatever its sum
            log_sum = tl.where(elastic > 0, elastic * log_sum, 0.0)
        moved = tl.log2(tl.where(a > 0, a, 1.0)) - log_sum
        log_sum = tl.where(a > 0, moved, -float("inf"))
    if MODE == "mass" or MODE == "log mass":
        v = tl.load(own + at, mask=inside, other=-float("inf"))
        log_sum = tl.where(v > -float("inf"), v * LOG2E + log_sum, -float("inf"))
    return exp2(log_sum) if MODE == "mass" else log_sum * LN2


@triton.jit
def _log_sums(  # noqa: C901, PLR0915
    rows, columns, v, own, weight, kappa, inv_reg, done, out, lifts, totals, live,
    blocks, spans, span,
    MODE: tl.constexpr, ONLINE: tl.constexpr, STEP: tl.constexpr, SPANS: tl.constexpr,
    KIND: tl.constexpr, D: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Sum a block of rows over all columns ("whole"), over one span ("span"), or join the spans."""
    program = tl.program_id(0)
    batch = (program // blocks).to(tl.int64)
    if done is not None and tl.load(done + batch) != 0:
        return
    i = program % blocks * BM + tl.arange(0, BM)
    at, inside = batch * rows.size + i, i < rows.size
    if rows.ends is not None:  # noqa: SIM102
        # who has no weight answers nothing
        if program % blocks * BM >= tl.load(rows.ends + 2 * batch):
            if STEP != "span":
                nothing = tl.full(
                    [BM], 0.0 if MODE == "mass" else -float("inf"), out.dtype.element_ty
                )
                tl.store(out + at, nothing, mask=inside)
            return
    last = columns.size
    if columns.ends is not None:
        last = tl.load(columns.ends + 2 * batch)
    block = program
    if live is not None:
        block = program * BM // SIZE
        last = tl.load(live.counts + block) * SIZE
        span = tl.cdiv(tl.cdiv(last, spans), BN) * BN
    c = tl.load(inv_reg + batch) * LOG2E
    own_i = own_cost(rows, batch, i, c)
    # a sum taken from its running maximum cannot be lost
    lift, wanted = own_i, i < 0
    if not ONLINE:
        lift, wanted = _guess(own, weight, at, inside, MODE)
        lift += own_i

    if STEP == "join":
        s = tl.arange(0, SPANS)
        part = (s.to(tl.int64) * tl.num_programs(0) + program)[:, None] * BM
        part += tl.arange(0, BM)[None, :]
        total = tl.load(totals + part, mask=(s < spans)[:, None], other=0.0)
        if ONLINE:
            peak = tl.load(lifts + part, mask=(s < spans)[:, None], other=-float("inf"))
            lift, total = merge(peak, total, 0)
        else:
            total = tl.sum(total, 0)
    else:
        start = tl.program_id(1) * span
        lift, total = _stream(
            rows, columns, v, batch, i, start, tl.minimum(start + span, last), c, lift, live, block,
            ONLINE, KIND, D, CHUNK, PRECISION, BN, SIZE,
        )  # fmt: skip

    if STEP == "span":
        part = (tl.program_id(1).to(tl.int64) * tl.num_programs(0) + program) * BM
        tl.store(totals + part + tl.arange(0, BM), total)
        if ONLINE:
            tl.store(lifts + part + tl.arange(0, BM), lift)
    else:
        if not ONLINE:
            lost = wanted & ~in_range(total)
            if live is not None:
                # the sum beside what it was thought to be says what was left out
                left = tl.load(live.cut + block) - tl.log2(total) * LN2
                lost |= wanted & ~(left <= live.lost)
                last = columns.size
            if tl.max(lost.to(tl.int32), 0) > 0:
                peak, again = _stream(
                    rows, columns, v, batch, i, 0, last, c, lift, None, block,
                    True, KIND, D, CHUNK, PRECISION, BN, SIZE,
                )  # fmt: skip
                lift, total = tl.where(lost, peak, lift), tl.where(lost, again, total)
        log_sum = finite(lift) + tl.log2(total) - own_i
        answer = _answer(own, weight, kappa, batch, at, inside, log_sum, MODE)
        tl.store(out + at, answer, mask=inside)


class Tiles(NamedTuple):
    """Block sizes of one launch.

    Attributes:
        BM: Resident points of a program.
        BN: Points that stream past at a time.
        CHUNK: Coordinates on chip at a time; a width beyond it makes a loop over chunks.
        warps: Warps of a program.
        slots: Programs that a multiprocessor is expected to hold.
    """

    BM: int
    BN: int
    CHUNK: int
    warps: int
    slots: int


# by compute capability: widths up to 64, up to 128, beyond; other devices take the first line
_TILES = {
    0: (Tiles(128, 32, 64, 8, 2), Tiles(128, 64, 32, 8, 1), Tiles(128, 64, 32, 8, 1)),
    9: (Tiles(256, 64, 64, 8, 2), Tiles(128, 64, 128, 8, 1), Tiles(128, 128, 64, 8, 1)),
    10: (Tiles(128, 32, 64, 8, 2), Tiles(128, 64, 64, 8, 1), Tiles(128, 64, 64, 8, 1)),
}


def tiles(clouds: Clouds, device: torch.device) -> Tiles:
    """Return block sizes that fit on chip without spills."""
    if clouds.double:
        if clouds.kind != "matrix":
            return Tiles(128, 16, clouds.width, 4, 4)
        return Tiles(32, 32, min(clouds.width, 64) if clouds.width <= 128 else 16, 4, 4)
    if clouds.kind != "matrix":
        return Tiles(256, 16, clouds.width, 4, 4)
    table = _TILES.get(capability(device), _TILES[0])
    tile = table[(clouds.width > 64) + (clouds.width > 128)]
    if clouds.width <= 64 and is_amd(device):
        # 64 lanes a wave and no wide accumulators: half the rows, or a few registers spill
        tile = tile._replace(BM=64)
    return tile._replace(CHUNK=min(tile.CHUNK, clouds.width))


def within(tile: Tiles, size: int) -> Tiles:
    """Return a tile that crosses no border between blocks of so many points."""
    if size < tile.BM:
        # a thread keeps its rows
        few = max(1, tile.warps * size // tile.BM)
        tile = tile._replace(BM=size, warps=few, slots=tile.slots * tile.warps // few)
    return tile._replace(BN=min(tile.BN, size))


def spans_for(programs: int, columns: int, slots: int) -> int:
    """Return in how many spans to cut the columns so that no multiprocessor waits for the last.

    Args:
        programs: Blocks of rows, over the whole batch.
        columns: Blocks of columns that one of them walks along.
        slots: Programs that run at the same time.
    """
    # a program's start and its share of the join cost about two blocks
    return min(
        range(1, min(64, columns) + 1),
        key=lambda spans: -(-programs * spans // slots) * (columns / spans + 2),
    )


def _launch(
    clouds: Clouds, v: Tensor, inv_reg: Tensor, *, mode: str, online: bool, own: Tensor | None,
    weight: Tensor | None = None, kappa: Tensor | None = None, done: Tensor | None = None,
    out: Tensor | None = None, live: Live | None = None,
) -> Tensor:  # fmt: skip
    """Return one number per row point, (B, n)."""
    batch, n, m = v.shape[0], clouds.rows.size, clouds.columns.size
    tile = tiles(clouds, v.device)
    BM, BN, CHUNK, warps, slots = tile if live is None else within(tile, live.size)
    blocks = triton.cdiv(n, BM)
    programs, slots = batch * blocks, slots * multiprocessors(v.device)
    # how much counts is known on the device alone: many spans end about together
    spans, span = max(1, min(16, 2 * slots // programs)), 0
    if live is None:
        spans = spans_for(programs, triton.cdiv(m, BN), slots)
        span = triton.cdiv(triton.cdiv(m, spans), BN) * BN
        spans = triton.cdiv(m, span)
    out = _empty(v, batch, n) if out is None else out
    totals = None if spans == 1 else _empty(v, spans, programs, BM)
    lifts = None if totals is None or not online else torch.empty_like(totals)
    registers = all_registers(v.device, warps) if clouds.double else {}
    for step, parts in (("whole", 1),) if spans == 1 else (("span", spans), ("join", 1)):
        _log_sums[programs, parts](
            clouds.rows, clouds.columns, v.contiguous(), own if own is None else own.contiguous(),
            weight if weight is None else weight.contiguous(), kappa, inv_reg, done, out, lifts,
            totals, live, blocks, spans, span,
            MODE=mode, ONLINE=online, STEP=step, SPANS=power_of_two(spans, 1),
            KIND=clouds.kind, D=clouds.width, CHUNK=CHUNK, PRECISION=clouds.precision,
            BM=BM, BN=BN, SIZE=0 if live is None else live.size, num_warps=warps, **registers,
            **OPTIONS,
        )  # fmt: skip
    return out


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, device=like.device, dtype=like.dtype)


def log_sum_rows(
    clouds: Clouds, v: Tensor, inv_reg: Tensor, *, guess: Tensor | None = None,
    live: Live | None = None,
) -> Tensor:  # fmt: skip
    """Return log sum_j exp(v_j - C_ij / reg), shape (B, n).

    Args:
        clouds: What `place` returned; `clouds.swapped()` sums over rows instead.
        v: Column potential (B, m), -inf where the weight is zero; in float64 if the clouds are,
            else float32.
        inv_reg: 1 / reg of each problem (B,).
        guess: Roughly the result (B, n), such as that of the last iteration. It saves the running
            maximum; rows that it would take out of range are summed again with one.
        live: Sum over what counts alone, both clouds in order; a row that turns out to have lost
            more than it may, beside its guess, is summed over all columns.
    """
    return _launch(clouds, v, inv_reg, mode="log", own=guess, online=guess is None, live=live)


def move_rows(clouds: Clouds, u: Tensor | None, v: Tensor, a: Tensor, inv_reg: Tensor) -> Tensor:
    """Return the row potential log a - log_sum_rows, -inf where the weight is zero.

    Arguments as in `sweep`; without `u` every sum is taken from its maximum.
    """
    return _launch(clouds, v, inv_reg, mode="row", weight=a, own=u, online=u is None)


def sweep(
    clouds: Clouds, u: Tensor | None, v: Tensor, a: Tensor, inv_reg: Tensor, *,
    kappa: Tensor | None = None, first: bool = False, done: Tensor | None = None,
    out: tuple[Tensor, Tensor] | None = None, log: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Move the row potential to its marginal and sum the columns of the plan at the new one.

    Args:
        clouds: What `place` returned.
        u: Row potential (B, n) that keeps the exponentials in range; None with `first`.
        v: Column potential (B, m), -inf where the weight is zero; in float64 if the clouds are,
            else float32.
        a: Row weights (B, n).
        inv_reg: 1 / reg of each problem (B,).
        kappa: Elasticity of relaxed rows (B,); None for exact marginals, 0 for a free one.
        first: Take the maximum of every sum; for a first sweep, or after a change of reg.
        done: Problems to be left out (B,), int32; `out` keeps what it holds for them.
        out: Where to write the result; its first tensor may be `u` itself.
        log: Return the logarithm of the column sums, which cannot underflow.

    Returns:
        The new row potential (B, n), -inf where the weight is zero, and the plan's column sums
        (B, m).
    """
    assert done is None or out is not None, "a problem left out needs an out that holds its values"
    online = first or u is None
    new_u, s = out or (None, None)
    new_u = _launch(
        clouds, v, inv_reg, mode="row", online=online, own=u, weight=a, kappa=kappa, done=done,
        out=new_u,
    )  # fmt: skip
    mode = "log mass" if log else "mass"
    s = _launch(clouds.swapped(), new_u, inv_reg, mode=mode, online=online, own=v, done=done, out=s)
    return new_u, s
