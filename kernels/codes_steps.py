"""The steps of `codes_rows`: which rows a program has, and what is made of them.

A step reads what others wrote before it from the cache that all programs share.
"""

import triton
import triton.language as tl

from .dense_sweep import _exponentials, _load_rows, _next_rows, _peaks, _rows_ahead
from .tiles import LOG2E, finite, merge
from .whole_steps import LEAST, MOST, SHARED


# a maximum over nothing that may be subtracted
NOTHING = tl.constexpr(-3e38)


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
def columns_of(f, m, W: tl.constexpr, CHUNKS: tl.constexpr, NEAR: tl.constexpr):
    """Return the potential of all columns; if `NEAR` the first read puts it in the nearest cache.

    Whoever waited for others has nothing old there, see `whole_steps.arrive`.
    """
    FROM: tl.constexpr = "" if NEAR else SHARED
    fs = ()
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        f_j = tl.load(f + j, mask=j < m, other=-float("inf"), cache_modifier=FROM)
        fs = fs + (f_j,)  # type: ignore[assignment]
    return fs


@triton.jit
def way(program, programs, blocks, back):
    """Return how many blocks a program has, which is first, and how far it is to the next.

    Steps take turns: what one read last is still in the cache when the next goes `back` from there.
    """
    trips = tl.cdiv(tl.maximum(blocks - program, 0), programs)
    last = program + (trips - 1) * programs
    return trips, tl.where(back, last, program), tl.where(back, -programs, programs)


@triton.jit
def first_sums(
    S, slope, keep, peaks, totals, problem, program, programs, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, BM: tl.constexpr,
    W: tl.constexpr, CHUNKS: tl.constexpr, PREFETCH: tl.constexpr,
):  # fmt: skip
    """Fold every P-th block of rows into a maximum and a sum of 2^(S / eps) for each column.

    Of an entry and the maximum before it one is the larger, so that one exponential does for both.
    """
    tops = ()
    sums = ()
    for _ in tl.static_range(CHUNKS):
        tops = tops + (tl.full([BM, W], NOTHING, tl.float32),)  # type: ignore[assignment]
        sums = sums + (tl.zeros([BM, W], tl.float32),)  # type: ignore[assignment]
    rows = tl.arange(0, BM)
    trips, block, far = way(program, programs, tl.cdiv(n, BM), False)
    ahead = _rows_ahead(S, block * BM + rows, n, m, strides, AXIS, DIV, W, CHUNKS, PREFETCH)
    for left in range(trips, 0, -1):
        i = block * BM + rows
        block = tl.where(left > 1, block + far, block)
        xs, ahead = _next_rows(
            S, ahead, i, block * BM + rows, n, m, strides, AXIS, DIV, W, CHUNKS, PREFETCH
        )  # fmt: skip
        kept = counted(keep, problem, i, n, MASKED)
        higher = ()
        more = ()
        for c in tl.static_range(CHUNKS):
            z = tl.where(kept[:, None], xs[c].to(tl.float32) * slope, -float("inf"))
            new = tl.maximum(tops[c], z)
            low = tl.minimum(tops[c], z, propagate_nan=tl.PropagateNan.ALL)
            less = tl.exp2(low - new)
            more = more + (tl.where(z > tops[c], sums[c] * less + 1.0, sums[c] + less),)  # type: ignore[assignment]
            higher = higher + (new,)  # type: ignore[assignment]
        tops = higher
        sums = more
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        peak, total = merge(tops[c], sums[c], 0)
        tl.store(peaks + j, peak, mask=j < m)
        tl.store(totals + j, total, mask=j < m)


@triton.jit
def scaled(
    S, xs, fs, base, slope, kept, i, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, W: tl.constexpr,
    CHUNKS: tl.constexpr, KNOWN: tl.constexpr,
):  # fmt: skip
    """Return the exponentials of rows, what makes each sum one, and the potential they stand at.

    Any base serves that keeps a sum in range: if `KNOWN` the row's potential of the step before. A
    row whose sum is out of range, or nan, is taken again from its maximum, and the longest, which
    leave no registers for that, are taken from it at once.
    """
    if not KNOWN:
        base = -_peaks(xs, fs, slope, CHUNKS)
    es, total = _exponentials(xs, fs, slope, base, CHUNKS)
    if KNOWN:
        lost = kept & ~((total > LEAST) & (total < MOST))
        if tl.max(lost.to(tl.int32), 0) > 0:
            # read again rather than kept: the entries' registers hold the exponentials now
            again = _load_rows(S, i, n, m, strides, AXIS, DIV, W, CHUNKS)
            base = -_peaks(again, fs, slope, CHUNKS)
            es, total = _exponentials(again, fs, slope, base, CHUNKS)
    scale = tl.where(kept, 1.0 / total, 0.0)
    if MASKED:
        # what a row holds that does not count may be inf, and times zero that is nan
        clear = ()
        for c in tl.static_range(CHUNKS):
            clear = clear + (tl.where(kept[:, None], es[c], 0.0),)  # type: ignore[assignment]
        es = clear
    return es, scale, base


@triton.jit
def sums_of_rows(
    S, f, g, slope, keep, sums_of, problem, program, programs, n, m, now, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, BM: tl.constexpr,
    W: tl.constexpr, CHUNKS: tl.constexpr, PREFETCH: tl.constexpr,
):  # fmt: skip
    """Scale every P-th block of rows to one, and sum the columns into a vector of one's own."""
    sums = ()
    for _ in tl.static_range(CHUNKS):
        sums = sums + (tl.zeros([BM, W], tl.float32),)  # type: ignore[assignment]
    rows = tl.arange(0, BM)
    trips, block, far = way(program, programs, tl.cdiv(n, BM), now // 2 % 2 == 1)
    i = block * BM + rows
    base_ahead = tl.load(g + i, mask=i < n, other=0.0, cache_modifier=SHARED)
    ahead = _rows_ahead(S, i, n, m, strides, AXIS, DIV, W, CHUNKS, PREFETCH)
    for left in range(trips, 0, -1):
        i = block * BM + rows
        block = tl.where(left > 1, block + far, block)
        after = block * BM + rows
        xs, ahead = _next_rows(S, ahead, i, after, n, m, strides, AXIS, DIV, W, CHUNKS, PREFETCH)
        # prototypes share all rows out, which leaves a row no more than they have and seldom little
        base = tl.where(now > 2, base_ahead, 0.0)
        base_ahead = tl.load(g + after, mask=after < n, other=0.0, cache_modifier=SHARED)
        # read anew, since registers are short; of the longest rows it would cost more of them
        fs = columns_of(f, m, W, CHUNKS, PREFETCH)
        kept = counted(keep, problem, i, n, MASKED)
        es, scale, base = scaled(
            S, xs, fs, base, slope, kept, i, n, m, strides, AXIS, DIV, MASKED, W, CHUNKS,
            PREFETCH,
        )  # fmt: skip
        tl.store(g + i, tl.where(kept, base + tl.log2(scale), 0.0), mask=i < n)
        more = ()
        for c in tl.static_range(CHUNKS):
            more = more + (sums[c] + es[c] * scale[:, None],)  # type: ignore[assignment]
        sums = more
    for c in tl.static_range(CHUNKS):
        j = c * W + tl.arange(0, W)
        tl.store(sums_of + j, tl.sum(sums[c], 0), mask=j < m)


@triton.jit
def answer(
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
            part = tl.load(totals + at, mask=inside, other=0.0, cache_modifier=SHARED)
            if FIRST:
                top = tl.load(peaks + at, mask=inside, other=-float("inf"), cache_modifier=SHARED)
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
            new += tl.load(f + j, mask=j < m, other=0.0, cache_modifier=SHARED)
        tl.store(f + j, new, mask=j < m)


@triton.jit
def write_rows(
    S, f, g, slope, keep, codes, labels, problem, program, programs, n, m, begin, now, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, SOFT: tl.constexpr,
    HARD: tl.constexpr, BM: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr,
    PREFETCH: tl.constexpr,
):  # fmt: skip
    """Write the softmax of S / eps and f over rows from `begin` on, or its maximum's place."""
    codes += problem * (n - begin) * m
    labels += problem * (n - begin)
    trips, block, far = way(program, programs, tl.cdiv(n - begin, BM), now // 2 % 2 == 1)
    rows = tl.arange(0, BM)
    # who writes and does nothing else has one block
    AHEAD: tl.constexpr = PREFETCH if g is not None else False
    i = begin + block * BM + rows
    ahead = _rows_ahead(S, i, n, m, strides, AXIS, DIV, W, CHUNKS, AHEAD)
    for left in range(trips, 0, -1):
        here = block * BM + rows
        i = begin + here
        block = tl.where(left > 1, block + far, block)
        after = begin + block * BM + rows
        xs, ahead = _next_rows(S, ahead, i, after, n, m, strides, AXIS, DIV, W, CHUNKS, AHEAD)
        # read anew, since registers are short
        fs = columns_of(f, m, W, CHUNKS, PREFETCH)
        kept = counted(keep, problem, i, n, MASKED)
        if SOFT:
            base = tl.zeros([BM], tl.float32)
            if g is not None and now > 2:
                base = tl.load(g + i, mask=i < n, other=0.0, cache_modifier=SHARED)
            es, scale, _ = scaled(
                S, xs, fs, base, slope, kept, i, n, m, strides, AXIS, DIV, MASKED, W, CHUNKS,
                PREFETCH,
            )  # fmt: skip
            for c in tl.static_range(CHUNKS):
                j = c * W + tl.arange(0, W)
                at = codes + here.to(tl.int64)[:, None] * m + j[None, :]
                code = (es[c] * scale[:, None]).to(codes.dtype.element_ty)
                # nobody reads them here, and scores are better kept in the cache
                tl.store(at, code, mask=(i < n)[:, None] & (j < m)[None, :], cache_modifier=".cs")
        if HARD:
            peak = _peaks(xs, fs, slope, CHUNKS)
            best = tl.full([BM, W], CHUNKS * W, tl.int32)
            for c in tl.static_range(CHUNKS):
                j = c * W + tl.arange(0, W)
                z = xs[c].to(tl.float32) * slope + fs[c][None, :]
                best = tl.where((z == peak[:, None]) & (best == CHUNKS * W), j[None, :], best)
            first = tl.min(best, 1)
            label = tl.where(kept & (first < m), first, -1)
            tl.store(labels + here, label.to(tl.int64), mask=i < n)
