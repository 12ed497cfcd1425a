"""One problem over a stored cost solved whole, to a tolerance, in one launch.

A cooperative grid, no larger than the device can hold at once, keeps going until the error of the
columns is small enough: nobody on the host is asked. A sweep has three parts, with a barrier across
the grid after each: rows are moved and columns summed, each program over blocks of rows of its own;
each program sums its own slice of the columns and takes the scalar products that the acceleration
needs; every program adds those up, decides alike and moves its slice. Annealing divides reg by a
factor, stage after stage.

The acceleration is Anderson's, with Nesterov's momentum where it may not be trusted: the rules are
those of `solvers.acceleration`. Its scalar products are float64 in every format.

Per sweep: one read of C and one exponential an entry, three barriers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import OPTIONS, layout, meets, whole_tile
from .launch import launch
from .tiles import LN2, LOG2E
from .whole_steps import (
    HELD,
    KINDS,
    LAST_PSI,
    LAST_R,
    MEMORY,
    SUMS,
    add_up,
    advance,
    at_rest,
    differences,
    kind,
    meet,
    number,
    only_if,
    sum_columns,
    sweep_rows,
    total_of,
    write_products,
)


# how a solve ended: within tol, at its last sweep, without progress, with what is no number
CONVERGED, LIMIT = tl.constexpr(0), tl.constexpr(1)
STALLED, BROKEN = tl.constexpr(2), tl.constexpr(3)
# pairs from which on the exponentials of a float64 sweep take longer than all else
LARGE = 1 << 22
# a solve then takes them in float32, until its error is that small or has not fallen for so many
# sweeps
CLOSE, IDLE = tl.constexpr(3e-5), tl.constexpr(10)


@triton.jit(
    do_not_specialize=[
        "n", "m", "stages", "factor", "first", "rough_tol", "rough_iter", "tol", "max_iter",
        "patience", "memory", "growth", "wait", "begin", "coarse",
    ]
)  # fmt: skip
def _solve_whole(  # noqa: C901, PLR0912, PLR0915
    C, a, b, inv_reg, u, v, held, part, dots, counter, out, n, m,
    stages, factor, first, rough_tol, rough_iter, tol, max_iter, patience, memory, growth, wait,
    begin, coarse, strides,
    FIXED: tl.constexpr, COARSE: tl.constexpr,
    AXIS: tl.constexpr, DIV: tl.constexpr, ACC: tl.constexpr,
    BM: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr,
    PREFETCH: tl.constexpr, HOLD: tl.constexpr, STAGES: tl.constexpr,
    COLS: tl.constexpr, RB: tl.constexpr, PB: tl.constexpr,
):  # fmt: skip
    """Sweep, accelerate and anneal from the column potential `v` until the error is `tol`."""
    program = tl.program_id(0)
    # the contiguous size comes divided, see configs.Layout
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    c = program * COLS + tl.arange(0, COLS)
    inside = c < m
    b_c = tl.load(b + c, mask=inside, other=0.0)
    live = b_c > 0
    log_b = tl.where(live, tl.log2(b_c) * LN2, 0.0)
    psi = tl.where(live, tl.load(v + c, mask=inside, other=0.0) - log_b, 0.0)
    mass = total_of(b, m)
    w = b_c.to(tl.float64) / mass
    gram = tl.zeros([MEMORY, MEMORY], tl.float64)
    means = tl.zeros([MEMORY], tl.float64)
    changes, moves = means, means
    zero = mass * 0
    none = zero.to(tl.int32)
    inf, scale = zero + float("inf"), tl.load(inv_reg).to(tl.float64) / first
    marks = at_rest(zero, none, wait)
    seen, error = inf, inf
    coarse = none + coarse
    sweeps, stage, begun, since, how, going, waits = none, none, none, none, none, none + 1, none
    while going > 0:
        slope = (scale * -LOG2E).to(ACC)
        mine = part + program.to(tl.int64) * m
        if COARSE:
            if coarse > 0:
                sweep_rows(
                    C, u, v, a, slope, sweeps, mine, n, m, strides,
                    AXIS, DIV, tl.float32, BM, W, CHUNKS, PREFETCH, HOLD, STAGES,
                )  # fmt: skip
            else:
                sweep_rows(
                    C, u, v, a, slope, sweeps, mine, n, m, strides,
                    AXIS, DIV, ACC, BM, W, CHUNKS, PREFETCH, HOLD, STAGES,
                )  # fmt: skip
        else:
            sweep_rows(
                C, u, v, a, slope, sweeps, mine, n, m, strides,
                AXIS, DIV, ACC, BM, W, CHUNKS, PREFETCH, HOLD, STAGES,
            )  # fmt: skip
        count, valid, moving = marks[5], marks[6], marks[7]
        known = only_if(valid, live)
        last_psi = tl.load(held + LAST_PSI * m + c, mask=known, other=0.0)
        last_r = tl.load(held + LAST_R * m + c, mask=known, other=0.0)
        meet(counter, waits + 1)
        s, log_s = sum_columns(
            C, u, psi + log_b, part, slope, live, c, n, m, strides, AXIS, DIV, ACC, COLS, RB
        )
        # a sum of zero means that no pair is allowed: nothing to answer
        r = tl.where(live & (log_s != -float("inf")), log_b - log_s, 0.0)
        if FIXED:
            sweeps += 1
            psi = tl.where(live, psi + r, 0.0)
            going = (sweeps < max_iter).to(tl.int32)
            waits += 2
            # as rows do, columns that no pair allows say so in the end
            closed = (live == 0) | ((log_s == -float("inf")) & (only_if(going, live) == 0))
            tl.store(v + c, tl.where(closed, -float("inf"), psi + log_b), mask=inside)
            meet(counter, waits)
        else:
            slot = count % memory
            dx, dr = differences(held, psi, r, last_psi, last_r, slot, valid, m, c, live)
            used = tl.minimum(count + valid, memory)
            off = tl.where(inside, tl.abs(s - b_c), 0.0)
            if program * COLS < m:
                write_products(
                    held, dots, psi, r, dx, dr, off, w, slot, used, moving, m, c, live, True
                )
            meet(counter, waits + 2)
            total, largest = add_up(dots, tl.cdiv(m, COLS), PB)
            sums = kind(total, SUMS)
            error, mean = number(sums, 0) / mass, number(sums, 1)
            sweeps += 1
            if error < 0.999 * seen:
                seen, since = error, sweeps
            last = stage == stages - 1
            broken = (error < float("inf")) == 0
            near = error <= tl.where(last, tol, rough_tol)
            switched = going == 0
            if COARSE:
                # what single precision says is believed before the last stage only
                fine = (coarse == 0) | (last == 0)
                near = near & fine
                stale = last & ((error <= tl.maximum(tol, CLOSE)) | (sweeps - since >= IDLE))
                switched = (coarse > 0) & stale
                if switched:
                    coarse = none
            full = sweeps >= max_iter - (stages - 1 - stage)
            stuck = sweeps - tl.where(last, since, begun) >= tl.where(last, patience, rough_iter)
            if near | full | stuck | broken:
                if last | broken:
                    how = tl.where(full, none + LIMIT, none + STALLED)
                    how = tl.where(near, none + CONVERGED, how)
                    how = tl.where(broken, none + BROKEN, how)
                    going = none
                else:
                    # potentials keep their units while reg shrinks
                    psi *= factor
                    scale *= factor
                    stage, begun, since = stage + 1, sweeps, sweeps
                    seen, marks = inf, at_rest(zero, none, wait)
            elif switched == 0:
                psi, marks, gram, means, changes, moves = advance(
                    held, dots + (tl.cdiv(m, COLS) * KINDS + program * (MEMORY + 1)) * MEMORY,
                    total, largest, psi, r, error, mean, marks, gram, means, changes, moves,
                    m, c, live, memory, growth, wait, begin,
                )  # fmt: skip
            if going > 0:
                tl.store(v + c, tl.where(live, psi + log_b, -float("inf")), mask=inside)
                meet(counter, waits + 3)
            waits += 3
    if program == 0:
        tl.store(out, error)
        tl.store(out + 1, sweeps)
        tl.store(out + 2, how)


def serves(C: Tensor, potentials: torch.dtype) -> bool:
    """Say whether rows of a cost (n, m) stay on chip, where programs can meet."""
    # the interpreter has one program, which meets nobody
    somewhere = C.device.type == "cpu" or meets(C.device)
    return somewhere and whole_tile(C, potentials.itemsize) is not None


def solve(
    C: Tensor, a: Tensor, b: Tensor, inv_reg: Tensor, v: Tensor | None = None, *,
    tol: float, max_iter: int, patience: int, stages: int, factor: float, rough_tol: float,
    rough_iter: int, memory: int, growth: float, wait: int, begin: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Solve one problem from its column potential, annealed and accelerated.

    Args:
        C: Cost (n, m), any strides, float64, float32, float16 or bfloat16.
        a: Row weights (n,), float32 or float64, in which all is computed.
        b: Column weights (m,), of the same dtype and total.
        inv_reg: 1 / reg, (1,).
        v: Column potential to start from (m,), at the first stage's reg; None for log b.
        tol: Relative L1 error of the columns to reach.
        max_iter: Sweeps allowed, at least one for each stage.
        patience: Sweeps without progress after which the problem counts as stalled.
        stages: How many regs there are, the last of which is the wanted one.
        factor: What reg is divided by between stages.
        rough_tol: Error at which a stage before the last one ends.
        rough_iter: Sweeps at which a stage before the last one ends.
        memory: Differences of past steps kept, at most `HELD_STEPS`.
        growth: An error this many times the best so far is a failure.
        wait: Steps of the fallback after the first failure.
        begin: Error below which extrapolation begins.

    Returns:
        Row potential (n,), column potential (m,), and (3,) float64: the error, the sweeps made, and
        how it ended, one of `CONVERGED`, `LIMIT`, `STALLED` and `BROKEN`.
    """
    numbers = stages, factor, factor ** (stages - 1), rough_tol, rough_iter, tol, max_iter, patience
    return _launch(C, a, b, inv_reg, v, (*numbers, memory, growth, wait, begin), fixed=False)


def fixed(C: Tensor, a: Tensor, b: Tensor, inv_reg: Tensor, n_iter: int) -> tuple[Tensor, Tensor]:
    """Make plain sweeps, rows then columns, from nothing, and return the potentials.

    Arguments as in `solve`.
    """
    unread = 1, 1.0, 1.0, 0.0, 1, 0.0, n_iter, 1, 1, 1.0, 1, 0.0
    return _launch(C, a, b, inv_reg, None, unread, fixed=True)[:2]


def _launch(
    C: Tensor, a: Tensor, b: Tensor, inv_reg: Tensor, v: Tensor | None,
    numbers: tuple[float, ...], *, fixed: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    if layout(C[None]).axis != 1:
        # a row at a time of what lies in columns would be read many times over
        C = C.contiguous()
    n, m = C.shape
    axis, div, strides, sizes = layout(C[None])
    tile = whole_tile(C, a.itemsize)
    assert tile is not None, "rows must fit on chip, see configs.whole_tile"
    slices, single = triton.cdiv(m, tile.COLS), a.dtype == torch.float32
    # a start is taken for a good one
    coarse = int(v is None)
    u, v = torch.empty_like(a), b.log() if v is None else v.clone()
    held = torch.empty(HELD.value + tile.programs, m, device=C.device, dtype=a.dtype)
    dots = torch.empty(
        4 + (slices * KINDS.value + tile.programs * (MEMORY.value + 1)) * MEMORY.value,
        device=C.device,
        dtype=torch.float64,
    )
    together = {"launch_cooperative_grid": True} if meets(C.device) else {}
    counter = torch.zeros(1, device=C.device, dtype=torch.int32)
    launch(
        _solve_whole, tile.programs,
        C, a.contiguous(), b.contiguous(), inv_reg, u, v, held, held[HELD.value :], dots[4:],
        counter, dots, *sizes, *numbers, coarse, strides,
        FIXED=fixed, COARSE=not (fixed or single) and n * m >= LARGE,
        AXIS=axis, DIV=div, ACC=tl.float32 if single else tl.float64,
        **tile.constants(), **OPTIONS, **together,
    )  # fmt: skip
    return u, v, dots[:3]
