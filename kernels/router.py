"""A router's iterations: tokens scaled to equal shares, then experts, all of them in one launch.

An iteration answers the experts' sums: `new_k = log(T / E) - log sum_i exp(z_ik - lse_i)`, where
`lse_i` is the log-sum-exp of token i's logits and the experts' potentials before it. Each program
folds tokens of its own into a maximum and a sum for each expert; then experts are answered, and all
programs read how far they moved and decide alike whether to go on. Where all of them are resident
they meet between these steps; elsewhere each step is a launch of its own, of the same code.

Potentials and exponents are float64 and to base 2, since logits may be far apart; exponentials are
float32 unless the plan is float64. Per entry and iteration: one read, from the cache, and two
exponentials.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .codes_steps import counted
from .configs import OPTIONS, all_registers, layout, meets, multiprocessors, power_of_two
from .launch import launch
from .tiles import LN2, LOG2E, exp2, finite, merge, offsets
from .whole_steps import SHARED, arrive


# entries that a program holds
_HELD = 4096
# potentials kept: those before an iteration, after it, and those that the next one writes
_KEPT = tl.constexpr(3)
# more steps than any device will make
_ENDLESS = 1 << 60


@triton.jit
def _experts(f, k, j, m):
    """Return the experts' potentials after k iterations; they begin at zero."""
    there = j < tl.where(k > 0, m, 0)
    return tl.load(f + k % _KEPT * m + j, mask=there, other=0.0, cache_modifier=SHARED)


@triton.jit
def _logits(
    L, old, keep, problem, i, j, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Return logits less what scales their tokens to one, and which tokens count."""
    inside = (i < n)[:, None] & (j < m)[None, :]
    z = tl.load(L + offsets(i, j, strides, AXIS, DIV), mask=inside, other=-float("inf"))
    z = z.to(tl.float64) * LOG2E
    x = z + old[None, :]
    top = finite(tl.max(x, 1))
    mass = tl.sum(exp2((x - top[:, None]).to(ACC)), 1)
    return z - (top + tl.log2(mass.to(tl.float64)))[:, None], counted(keep, problem, i, n, MASKED)


@triton.jit
def _change(f, k, m, W: tl.constexpr):
    """Return the mean change of the experts' scalings in iteration k; nan out of range."""
    j = tl.arange(0, W)
    moved = tl.abs(exp2(_experts(f, k, j, m)) - exp2(_experts(f, k - 1, j, m)))
    return tl.sum(tl.where(j < m, moved, 0.0), 0) / m


@triton.jit
def _answer(f, peaks, totals, k, tokens, program, programs, m, BP: tl.constexpr, BN: tl.constexpr):
    """Answer what all programs summed, in every P-th block of experts."""
    for block in range(program, tl.cdiv(m, BN), programs):
        j = block * BN + tl.arange(0, BN)
        peak = tl.full([BN], -float("inf"), tl.float64)
        total = tl.zeros([BN], tl.float64)
        for p0 in range(0, programs, BP):
            p = p0 + tl.arange(0, BP)
            at = p[:, None] * m + j[None, :]
            inside = (p < programs)[:, None] & (j < m)[None, :]
            tops = tl.load(peaks + at, mask=inside, other=-float("inf"), cache_modifier=SHARED)
            sums = tl.load(totals + at, mask=inside, other=0.0, cache_modifier=SHARED)
            top, part = merge(tops, sums, 0)
            new = tl.maximum(peak, top)
            total = total * exp2(peak - finite(new)) + part * exp2(top - finite(new))
            peak = new
        # where no token counts, nothing moves
        answer = tl.log2(tokens / m) - (peak + tl.log2(total))
        answer = tl.where(tokens > 0, answer, 0.0)
        tl.store(f + (k + 1) % _KEPT * m + j, answer, mask=j < m)


@triton.jit
def _sum_tokens(
    L, f, keep, peaks, totals, k, problem, program, programs, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, ACC: tl.constexpr,
    BM: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Fold every P-th block of scaled tokens into a maximum and a sum for each expert."""
    j = tl.arange(0, W)
    old = _experts(f, k, j, m)
    peak = tl.full([W], -float("inf"), tl.float64)
    total = tl.zeros([W], tl.float64)
    for block in range(program, tl.cdiv(n, BM), programs):
        i = block * BM + tl.arange(0, BM)
        y, kept = _logits(L, old, keep, problem, i, j, n, m, strides, AXIS, DIV, MASKED, ACC)
        y = tl.where(kept[:, None], y, -float("inf"))
        new = tl.maximum(peak, tl.max(y, 0))
        top = finite(new)
        sums = tl.sum(exp2((y - top[None, :]).to(ACC)), 0).to(tl.float64)
        total = total * exp2(peak - top) + sums
        peak = new
    tl.store(peaks + program * m + j, peak, mask=j < m)
    tl.store(totals + program * m + j, total, mask=j < m)


@triton.jit
def _write_plan(
    L, f, keep, log_plan, k, count, problem, program, programs, n, m, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, ACC: tl.constexpr,
    BM: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Write tokens as iteration k scaled them, and experts after it."""
    j = tl.arange(0, W)
    old = _experts(f, k - 1, j, m)
    shift = _experts(f, k, j, m) - tl.where(count > 0, tl.log2(count), 0.0)
    for block in range(program, tl.cdiv(n, BM), programs):
        i = block * BM + tl.arange(0, BM)
        y, kept = _logits(L, old, keep, problem, i, j, n, m, strides, AXIS, DIV, MASKED, ACC)
        y = tl.where(kept[:, None], (y + shift[None, :]) * LN2, -float("inf"))
        at = log_plan + (problem * n + i)[:, None] * m + j[None, :]
        inside = (i < n)[:, None] & (j < m)[None, :]
        tl.store(at, y.to(log_plan.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n", "m", "programs", "begin", "until", "write", "tol", "fixed"])
def _route(  # noqa: C901
    L, keep, tokens, f, part, taken, change, met, log_plan,
    n, m, programs, begin, until, write, tol, fixed, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, MASKED: tl.constexpr, MEET: tl.constexpr,
    ACC: tl.constexpr, BM: tl.constexpr, W: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Take the steps from `begin` to `until`, two an iteration; the last launch writes the plan."""
    program = tl.program_id(0) % programs
    problem = (tl.program_id(0) // programs).to(tl.int64)
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    L += problem * strides[0] * DIV
    f += problem * _KEPT * m
    peaks = part + problem * programs * m
    totals = peaks + tl.num_programs(0).to(tl.int64) * m
    none = problem * 0
    count = (tl.load(tokens + problem) if MASKED else n + none).to(tl.float64)
    # iterations made when it ended, zero before
    made = tl.load(taken + problem)
    now, waits = none + begin, none
    while (made == 0) & (now < until):
        k = now // 2
        if (now % 2 == 0) & (k > 0) & (fixed == 0):
            # nan goes on
            made = tl.where(_change(f, k, m, W) <= tol, k, none)
        if made == 0:
            if now % 2 == 0:
                _sum_tokens(
                    L, f, keep, peaks, totals, k, problem, program, programs, n, m, strides,
                    AXIS, DIV, MASKED, ACC, BM, W,
                )  # fmt: skip
            else:
                _answer(f, peaks, totals, k, count, program, programs, m, BP, BN)
            now += 1
            waits += 1
            if MEET:
                # a counter for each problem, of which some end before others
                arrive(met + problem, waits * programs)
            else:
                tl.debug_barrier()
    if write != 0:
        made = tl.where(made == 0, now // 2, made)
        if program == 0:
            tl.store(change + problem, _change(f, made, m, W))
        _write_plan(
            L, f, keep, log_plan, made, count, problem, program, programs, n, m, strides,
            AXIS, DIV, MASKED, ACC, BM, W,
        )  # fmt: skip
    if (made > 0) & (program == 0):
        tl.store(taken + problem, made)


def serves(L: Tensor, fixed: bool) -> bool:
    """Say whether a program holds a token's logits, and programs can meet where some end early."""
    return L.shape[-1] <= _HELD and (fixed or meets(L.device))


def route(
    L: Tensor, keep: Tensor | None, n_iter: int, tol: float, fixed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the log-plan (B, T, E), iterations (B,), and how much the last one changed (B,).

    Args:
        L: Logits (B, T, E), any strides and floating dtype; those that are served.
        keep: Tokens that count (B, T), bool; None for all.
        n_iter: Iterations at most.
        tol: Mean change of the experts' scalings at which to stop.
        fixed: Whether to make all of them.
    """
    B, n, m = L.shape
    how, work = layout(L), torch.promote_types(L.dtype, torch.float32)
    W, share = power_of_two(m, 4), max(1, multiprocessors(L.device) // B)
    BM = min(_HELD // W, power_of_two(-(-n // share), 1))
    programs = max(1, min(share, -(-n // BM)))
    log_plan = torch.empty(B, n, m, device=L.device, dtype=work)
    f = torch.empty(B, _KEPT.value, m, device=L.device, dtype=torch.float64)
    part = torch.empty(2, B, programs, m, device=L.device, dtype=torch.float64)
    change = torch.empty(B, device=L.device, dtype=torch.float64)
    taken, met = torch.zeros(2, B, device=L.device, dtype=torch.int64)
    keep = None if keep is None else keep.contiguous()
    tokens = None if keep is None else keep.sum(-1)
    # the only program of a problem waits for nobody
    resident = programs == 1 or meets(L.device)
    together = resident and programs > 1
    warps = 8 if BM * W > 1024 else 4
    options = all_registers(L.device, warps) | OPTIONS
    if together:
        options["launch_cooperative_grid"] = True

    def steps(begin: int, until: int, write: bool = False) -> None:
        # a pointer that a constant switch leaves unread still has to be one
        launch(
            _route, B * programs, L, f if keep is None else keep, f if tokens is None else tokens,
            f, part, taken, change, met, log_plan, *how.sizes, programs, begin, until, int(write),
            tol, int(fixed), how.strides, AXIS=how.axis, DIV=how.div, MASKED=keep is not None,
            MEET=together, ACC=tl.float64 if work == torch.float64 else tl.float32, BM=BM, W=W,
            BP=16, BN=32, num_warps=warps, **options,
        )  # fmt: skip

    end = 2 * min(n_iter, _ENDLESS)
    if resident:
        steps(0, end, write=True)
    else:
        for begin in range(end):
            steps(begin, begin + 1)
        steps(end, end, write=True)
    return log_plan, taken, change
