"""The steps of `whole`: a barrier, a program's rows, its columns, and what all agree on.

What one program writes and another reads stands on the two sides of a barrier. What is read once
comes from the cache that all share, what is read again and again from the nearest. What a program
writes and reads itself may be held by several of its threads, so that all must have read before one
writes anew.
"""

import triton
import triton.language as tl

from .dense_sweep import _load_rows, _next_rows, _peaks, _rows_ahead
from .tiles import LN2, LOG2E, TINY, exp2, fold, offsets


# how what another program wrote is loaded: not from the multiprocessor's own cache
SHARED = tl.constexpr(".cg")
# differences of past steps held, in vectors of a power of two, and the kinds of scalar products
# that programs exchange
HELD_STEPS, MEMORY, KINDS = tl.constexpr(15), tl.constexpr(16), tl.constexpr(4)
ROW, RIGHT, SUMS, LARGEST = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
# what is held of every column: vectors, and from DX and DR on as many as MEMORY
LAST_PSI, LAST_R = tl.constexpr(0), tl.constexpr(1)
BEST_PSI, BEST_R = tl.constexpr(2), tl.constexpr(3)
MOMENTUM, DX, DR, HELD = tl.constexpr(4), tl.constexpr(5), tl.constexpr(21), tl.constexpr(37)
# what is added to the unit diagonal of a Gram matrix
RIDGE = tl.constexpr(1e-6)
# how many times the residual an extrapolation may go, see `solvers.acceleration`
FARTHEST = tl.constexpr(1e6)
# row sums outside this range are taken again: entries far below them would be lost
LEAST, MOST = tl.constexpr(1e-12), tl.constexpr(1e12)


@triton.jit
def meet(counter, waits):
    """Wait until every program came here as often; what they wrote before is seen after."""
    arrive(counter, waits * tl.num_programs(0))


@triton.jit
def arrive(counter, target):
    """Wait until programs came here `target` times in all; what they wrote before is seen after.

    To acquire is to empty the multiprocessor's own cache, so that plain loads see it too.
    """
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release")
    while tl.atomic_add(counter, 0, sem="acquire") < target:
        pass
    tl.debug_barrier()


@triton.jit
def sweep_rows(
    C, u, v, a, slope, sweeps, mine, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, ACC: tl.constexpr,
    BM: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr, PREFETCH: tl.constexpr,
    HOLD: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Move the rows of this program's blocks, and write the sums of their columns to `mine`.

    Exponents and potentials are of the dtype of `v`, exponentials and their sums of ACC.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    sums = ()
    vs = _load_columns(v, m, W, CHUNKS)
    for _ in tl.static_range(CHUNKS):
        sums = sums + (tl.zeros([BM, W], ACC),)  # type: ignore[assignment]
    rows = tl.arange(0, BM)
    blocks = tl.cdiv(n, BM)
    ahead = _rows_ahead(C, program * BM + rows, n, m, strides, AXIS, DIV, W, CHUNKS, PREFETCH)
    weight_ahead, base_ahead = _load_side(a, u, program * BM + rows, n)
    for block in tl.range(program, blocks, programs, num_stages=STAGES):
        i = block * BM + rows
        if not HOLD:
            vs = _load_columns(v, m, W, CHUNKS)
        after = tl.minimum(block + programs, blocks - 1) * BM + rows
        xs, ahead = _next_rows(C, ahead, i, after, n, m, strides, AXIS, DIV, W, CHUNKS, PREFETCH)
        weight, base = weight_ahead, base_ahead * LOG2E
        weight_ahead, base_ahead = _load_side(a, u, (block + programs) * BM + rows, n)
        # whatever keeps the sum in range will do; a row without weight has no exponentials
        base = tl.where(weight > 0, tl.where(sweeps > 0, base, float("nan")), -float("inf"))
        es, total = _exponentials(xs, vs, slope, base, ACC, CHUNKS)
        # nan is lost too
        lost = (weight > 0) & ~((total > LEAST) & (total < MOST))
        if tl.max(lost.to(tl.int32), 0) > 0:
            # read again rather than kept: the entries' registers hold the exponentials now
            again = _load_rows(C, i, n, m, strides, AXIS, DIV, W, CHUNKS)
            base = tl.where(weight > 0, -_peaks(again, vs, slope, CHUNKS), -float("inf"))
            es, total = _exponentials(again, vs, slope, base, ACC, CHUNKS)
        # a row whose every pair is forbidden is as one without weight
        move = tl.where((weight > 0) & (total > 0), weight / total, 0.0)
        tl.store(u + i, (base + tl.log2(move)) * LN2, mask=i < n)
        more = ()
        for c in tl.static_range(CHUNKS):
            more = more + (sums[c] + es[c] * move.to(ACC)[:, None],)  # type: ignore[assignment]
        sums = more
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        tl.store(mine + j, tl.sum(sums[c], 0), mask=j < m)


@triton.jit
def _exponentials(xs, vs, slope, shift, ACC: tl.constexpr, CHUNKS: tl.constexpr):
    """Return 2^(v - C / reg + shift) in ACC, and its row sums in the dtype of v."""
    es = ()
    lanes = tl.zeros(xs[0].shape, ACC)
    for c in tl.static_range(CHUNKS):
        z = xs[c].to(vs[c].dtype) * slope + (vs[c][None, :] + shift[:, None])
        e = exp2(z.to(ACC))
        lanes += e
        es = es + (e,)  # type: ignore[assignment]
    return es, tl.sum(lanes, 1).to(vs[0].dtype)


@triton.jit
def _load_side(a, u, i, n):
    """Return the weights of the rows `i` and their potentials."""
    return tl.load(a + i, mask=i < n, other=0.0), tl.load(u + i, mask=i < n, other=0.0)


@triton.jit
def _load_columns(v, m, W: tl.constexpr, CHUNKS: tl.constexpr):
    """Return the column potentials in chunks of W, base 2."""
    vs = ()
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        v_j = tl.load(v + j, mask=j < m, other=-float("inf")) * LOG2E
        vs = vs + (v_j,)  # type: ignore[assignment]
    return vs


@triton.jit
def sum_columns(
    C, u, v_c, part, slope, live, c, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, ACC: tl.constexpr,
    COLS: tl.constexpr, RB: tl.constexpr,
):  # fmt: skip
    """Return the sums of the columns `c` and their logarithms; those lost to underflow afresh."""
    programs = tl.num_programs(0)
    s = tl.zeros([COLS], ACC)
    for q0 in range(0, programs, RB):
        q = q0 + tl.arange(0, RB)
        at = part + q.to(tl.int64)[:, None] * m + c[None, :]
        inside = (q < programs)[:, None] & (c < m)[None, :]
        s += tl.sum(tl.load(at, mask=inside, other=0.0, cache_modifier=SHARED), 0)
    log_s = tl.log2(s)
    lost = live & ~(s > TINY)
    if tl.max(lost.to(tl.int32), 0) > 0:
        peak = tl.full([COLS], -float("inf"), ACC)
        total = tl.zeros([COLS], ACC)
        for i0 in range(0, n, RB):
            i = i0 + tl.arange(0, RB)
            u_i = tl.load(u + i, mask=i < n, other=-float("inf")) * LOG2E
            inside = (i < n)[:, None] & (c < m)[None, :]
            x = tl.load(C + offsets(i, c, strides, AXIS, DIV), mask=inside, other=0.0).to(ACC)
            peak, total = fold(peak, total, x * slope + u_i[:, None], 0)
        again = peak + tl.log2(total) + v_c * LOG2E
        log_s = tl.where(lost, again, log_s)
        s = tl.where(lost, exp2(again), s)
    return s, log_s * LN2


@triton.jit
def least_squares(mine, gram, right, used):
    """Return the weights, [MEMORY], that make gram @ weights = right; zeros if it cannot.

    `mine` is memory of this program, [MEMORY + 1, MEMORY].
    """
    k = tl.arange(0, MEMORY)
    eye = k[:, None] == k[None, :]
    size = tl.sum(tl.where(eye, gram, 0.0), 1)
    scale = tl.where((k < used) & (size > 0), 1.0 / tl.sqrt(size), 0.0)
    A = tl.where(eye, 1.0 + RIDGE, gram * scale[:, None] * scale[None, :])
    tl.store(mine + k[:, None] * MEMORY + k[None, :], A)
    tl.store(mine + MEMORY * MEMORY + k, right * scale)
    tl.debug_barrier()
    eliminate(mine)
    tl.debug_barrier()
    mix = tl.load(mine + MEMORY * MEMORY + k, mask=k < HELD_STEPS, other=0.0) * scale
    good = tl.max((tl.abs(mix) < float("inf")).to(tl.int32) ^ 1, 0) == 0
    return tl.where(good & (k < used), mix, 0.0)


@triton.jit(noinline=True)
def eliminate(mine):  # noqa: C901
    """Solve the system of HELD_STEPS equations that `mine` holds, its right side as a last row.

    Every thread eliminates by itself, in numbers of its own: together each pivot would cost several
    exchanges between threads. In float32, where all fit in its registers; what is added to the
    diagonal is above its rounding. A Gram matrix with a unit diagonal needs no pivots.
    """
    # the lower triangle row by row, then the right side as one more row
    rows = ()
    for i in tl.static_range(HELD_STEPS + 1):
        for j in tl.static_range(HELD_STEPS):
            if j <= i:
                at = MEMORY * MEMORY if i == HELD_STEPS else i * MEMORY
                x = tl.load(mine + at + j).to(tl.float32)
                rows = rows + (x,)  # type: ignore[assignment]
    inverse = ()
    for p in tl.static_range(HELD_STEPS):
        one = 1.0 / rows[p * (p + 1) // 2 + p]
        inverse = inverse + (one,)  # type: ignore[assignment]
        left = ()
        for i in tl.static_range(HELD_STEPS + 1):
            share = rows[i * (i + 1) // 2 + p] * one if i > p else one
            for j in tl.static_range(HELD_STEPS):
                if j <= i:
                    x = rows[i * (i + 1) // 2 + j]
                    # then i is too
                    if j > p:
                        x -= share * rows[j * (j + 1) // 2 + p]
                    left = left + (x,)  # type: ignore[assignment]
        rows = left
    # the last weight first
    found = ()
    for p in tl.static_range(HELD_STEPS - 1, -1, -1):
        x = rows[HELD_STEPS * (HELD_STEPS + 1) // 2 + p]
        for i in tl.static_range(p + 1, HELD_STEPS):
            x -= rows[i * (i + 1) // 2 + p] * found[HELD_STEPS - 1 - i]
        x *= inverse[p]
        found = found + (x,)  # type: ignore[assignment]
    tl.debug_barrier()
    for p in tl.static_range(HELD_STEPS):
        tl.store(mine + MEMORY * MEMORY + p, found[HELD_STEPS - 1 - p].to(tl.float64))


@triton.jit
def add_up(dots, slices, PB: tl.constexpr):
    """Return the sums and the maxima of what all slices wrote, [KINDS, MEMORY] each."""
    k = tl.arange(0, KINDS * MEMORY)
    total, largest = tl.zeros([KINDS * MEMORY], tl.float64), tl.zeros([KINDS * MEMORY], tl.float64)
    for q0 in range(0, slices, PB):
        q = q0 + tl.arange(0, PB)
        at = dots + (q * KINDS * MEMORY)[:, None] + k[None, :]
        some = tl.load(at, mask=(q < slices)[:, None], other=0.0, cache_modifier=SHARED)
        total += tl.sum(some, 0)
        largest = tl.maximum(largest, tl.max(some, 0))
    return total, largest


@triton.jit
def kind(numbers, KIND: tl.constexpr):
    """Return the numbers of a kind, [MEMORY]."""
    table = tl.reshape(numbers, [KINDS, MEMORY])
    return tl.sum(tl.where((tl.arange(0, KINDS) == KIND)[:, None], table, 0.0), 0)


@triton.jit
def number(numbers, at: tl.constexpr):
    """Return one of [MEMORY] numbers."""
    return tl.sum(tl.where(tl.arange(0, MEMORY) == at, numbers, 0.0), 0)


@triton.jit
def write_products(
    held, dots, psi, r, dx, dr, off, w, slot, used, moving, m, c, live, CENTRED: tl.constexpr
):  # fmt: skip
    """Write this program's part of all scalar products, weighted by `w`, and of the maxima.

    `CENTRED` takes the means of residuals off, where a constant changes nothing.
    """
    k = tl.arange(0, MEMORY)
    at = held + DR * m + k.to(tl.int64)[:, None] * m + c[None, :]
    known = ((k < used) & (k != slot))[:, None] & live[None, :]
    past = tl.where((k == slot)[:, None], dr[None, :], tl.load(at, mask=known, other=0.0))
    momentum = tl.load(held + MOMENTUM * m + c, mask=only_if(moving, live), other=0.0)
    step = tl.where(only_if(moving, live), psi + r - momentum, 0.0).to(tl.float64)
    largest = tl.where(k == 0, tl.max(tl.abs(r), 0), tl.max(tl.abs(dr), 0))
    largest = tl.where(k == 2, tl.max(tl.abs(dx + dr), 0), largest)
    r, dr, past = w * r, w * dr, past.to(tl.float64)
    sums = tl.where(k == 0, tl.sum(off.to(tl.float64), 0), tl.sum(r, 0))
    sums = tl.where(k == 2, tl.sum(dr, 0), sums)
    if not CENTRED:
        sums = tl.where(k == 0, sums, 0.0)
    sums = tl.where(k == 3, tl.sum(r * step, 0), tl.where(k == 4, tl.sum(w * step, 0), sums))
    mine = dots + tl.program_id(0) * KINDS * MEMORY + k
    tl.store(mine + ROW * MEMORY, tl.sum(past * dr[None, :], 1))
    tl.store(mine + RIGHT * MEMORY, tl.sum(past * r[None, :], 1))
    tl.store(mine + SUMS * MEMORY, sums)
    tl.store(mine + LARGEST * MEMORY, largest.to(tl.float64))


@triton.jit
def taken_back(held, mix, used, m, c, live):
    """Return what the past steps, weighted by `mix`, take back from a plain step."""
    k = tl.arange(0, MEMORY)
    at = held + k.to(tl.int64)[:, None] * m + c[None, :]
    known = (k < used)[:, None] & live[None, :]
    past = tl.load(at + DX * m, mask=known, other=0.0).to(tl.float64)
    past += tl.load(at + DR * m, mask=known, other=0.0).to(tl.float64)
    return tl.sum(past * mix[:, None], 0)


@triton.jit
def only_if(flag, mask):
    """Return the mask if the number `flag` is above zero, else nothing of it."""
    return mask & (tl.zeros(mask.shape, tl.int32) + flag > 0)


@triton.jit
def total_of(b, m):
    """Return the sum of m numbers in float64."""
    lanes = tl.zeros([1024], tl.float64)
    for j0 in range(0, m, 1024):
        j = j0 + tl.arange(0, 1024)
        lanes += tl.load(b + j, mask=j < m, other=0.0).to(tl.float64)
    return tl.sum(lanes, 0)


@triton.jit
def differences(held, psi, r, last_psi, last_r, slot, valid, m, c, live):
    """Return what changed since the step before, kept in its slot; zeros if there is none."""
    known = only_if(valid, live)
    dx, dr = tl.where(known, psi - last_psi, 0.0), tl.where(known, r - last_r, 0.0)
    tl.store(held + DX * m + slot.to(tl.int64) * m + c, dx, mask=known)
    tl.store(held + DR * m + slot.to(tl.int64) * m + c, dr, mask=known)
    return dx, dr


@triton.jit
def at_rest(zero, none, wait):
    """Return the marks of a run that has not begun, given zeros of float64 and int32.

    They are the least error and the mean residual there, for how long to wait and how long the next
    time, Nesterov's t, how many differences are held, and whether there is a step before this one
    and whether it gathers speed.
    """
    return zero + float("inf"), zero, zero, zero + wait, zero + 1, none, none, none


@triton.jit
def advance(  # noqa: PLR0915
    held, mine, total, largest, psi, r, error, mean, marks, gram, means, changes, moves, m, c, live,
    memory, growth, wait, begin,
):  # fmt: skip
    """Return the next column potentials, and what is known after the step.

    The rules are those of `solvers.acceleration.Anderson`.
    """
    best, best_mean, waiting, penalty, t, count, valid, moving = marks
    k = tl.arange(0, MEMORY)
    sums, largest = kind(total, SUMS), kind(largest, LARGEST)
    reach = number(largest, 0)
    if valid > 0:
        row, new = kind(total, ROW), k == count % memory
        gram = tl.where(new[:, None], row[None, :], gram)
        gram = tl.where(new[None, :], row[:, None], gram)
        means = tl.where(new, number(sums, 2), means)
        changes = tl.where(new, number(largest, 1), changes)
        moves = tl.where(new, number(largest, 2), moves)
        count += 1
    failed = ((error <= growth * best) == 0) & (waiting <= 0)
    waiting -= 1
    if failed:
        # back to the best, with nothing learnt on the way
        psi = tl.load(held + BEST_PSI * m + c, mask=live, other=0.0)
        r = tl.load(held + BEST_R * m + c, mask=live, other=0.0)
        mean = best_mean
        waiting, penalty, t = penalty, 2 * penalty, t * 0 + 1
        count, moving = count * 0, moving * 0
    if error < best:
        best, best_mean = error, mean
        tl.store(held + BEST_PSI * m + c, psi, mask=live)
        tl.store(held + BEST_R * m + c, r, mask=live)
    tl.store(held + LAST_PSI * m + c, psi, mask=live)
    tl.store(held + LAST_R * m + c, r, mask=live)
    valid = valid * 0 + 1
    used = tl.minimum(count, memory)
    plain = psi + (r - mean.to(r.dtype))
    # residuals that do not change say where to go and not how far: gather speed there
    changed = tl.max(tl.where(k < used, changes, 0.0), 0)
    patient = (waiting > 0) | (error > begin) | (changed <= reach / FARTHEST)
    mix = tl.zeros([MEMORY], tl.float64)
    if patient == 0:
        centred = gram - means[:, None] * means[None, :]
        mix = least_squares(mine, centred, kind(total, RIGHT) - means * mean, used)
        # parts that no allowed pair joins have a constant each
        patient = tl.sum(tl.abs(mix) * moves, 0) > FARTHEST * reach
    if patient:
        momentum = tl.load(held + MOMENTUM * m + c, mask=only_if(moving, live), other=0.0)
        # several threads hold a column: all must have read before one writes
        tl.debug_barrier()
        tl.store(held + MOMENTUM * m + c, plain, mask=live)
        psi = plain
        if moving > 0:
            against = number(sums, 3) - mean * number(sums, 4) < 0
            longer = (1 + tl.sqrt(1 + 4 * t * t)) / 2
            psi += tl.where(against, 0.0, (t - 1) / longer).to(r.dtype) * (plain - momentum)
            t = tl.where(against, t * 0 + 1, longer)
        moving = moving * 0 + 1
    else:
        # its momentum would be stale when it is needed next
        psi = (plain.to(tl.float64) - taken_back(held, mix, used, m, c, live)).to(r.dtype)
        moving, t = moving * 0, t * 0 + 1
    marks = best, best_mean, waiting, penalty, t, count, valid, moving
    return tl.where(live, psi, 0.0), marks, gram, means, changes, moves
