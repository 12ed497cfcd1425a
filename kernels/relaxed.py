"""How relaxed columns answer a sweep, and how far they are from it, in one launch.

One program reads the potentials of a problem a few times, which is nothing beside its sweep. All
in float64, whatever the potentials are. The formulas are those of `solvers.steps`.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import OPTIONS
from .launch import launch
from .tiles import LN2, LOG2E, exp2, finite


@triton.jit
def _log(x):
    return tl.log2(x) * LN2


@triton.jit
def _expm1(x):
    """Return e^x - 1, with all its digits near zero."""
    series = tl.full(x.shape, 1.0, tl.float64)
    for k in tl.static_range(16, 1, -1):
        series = 1.0 + x / k * series
    return tl.where(tl.abs(x) < 0.5, x * series, exp2(x * LOG2E) - 1.0)


@triton.jit
def _log1p(x):
    """Return log(1 + x), with all its digits near zero."""
    y = 1.0 + x
    return tl.where(y == 1.0, x, _log(y) * (x / (y - 1.0)))


@triton.jit
def _potential(scaled, weight, at, inside):
    """Return u - log a of rows, inf where there is none, and their weights."""
    w = tl.load(weight + at, mask=inside, other=0.0).to(tl.float64)
    x = tl.load(scaled + at, mask=inside, other=-float("inf")).to(tl.float64)
    there = (x > -float("inf")) & (w > 0)
    return w, tl.where(there, x - _log(tl.where(there, w, 1.0)), float("inf"))


@triton.jit
def _moved(psi, log_s, b, kappa, at, inside, RELAXED: tl.constexpr):
    """Return where the columns' own step leads, inf where no pair is allowed, and what it is of."""
    w = tl.load(b + at, mask=inside, other=0.0).to(tl.float64)
    old = tl.load(psi + at, mask=inside, other=0.0).to(tl.float64)
    s = tl.load(log_s + at, mask=inside, other=-float("inf")).to(tl.float64)
    answers = (w > 0) & (s > -float("inf"))
    new = old - (s - _log(tl.where(w > 0, w, 1.0)))
    if RELAXED:
        new *= kappa
    new = tl.where(answers, new, old)
    return w, old, s, new, tl.where(s > -float("inf"), new, float("inf"))


@triton.jit
def _change(w, potential, mean, rate):
    """Return what the masses w exp(-rate * potential) differ from those at the mean potential."""
    there = potential < float("inf")
    x = (mean - tl.where(there, potential, mean)) * rate
    return tl.where(w > 0, w * tl.where(there, _expm1(x), -1.0), 0.0)


@triton.jit(do_not_specialize=["n", "m", "rho_a", "rho_b", "most", "heaviest", "cap"])
def _answer_relaxed(  # noqa: PLR0915
    psi, u, log_s, a, b, reg, residual, error, n, m, rho_a, rho_b, most, heaviest, cap,
    COLUMNS: tl.constexpr, ROWS: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Answer the sums of one problem; `ROWS` and `COLUMNS` say which sides are relaxed."""
    problem = tl.program_id(0).to(tl.int64)
    eps = tl.load(reg + problem).to(tl.float64)
    rate_a, rate_b = (eps / rho_a if ROWS else eps * 0), (eps / rho_b if COLUMNS else eps * 0)
    kappa = rho_b / (rho_b + eps) if COLUMNS else eps * 0
    lanes, nothing = tl.arange(0, W), tl.zeros([W], tl.float64)
    mass, there, weighed = nothing, nothing, nothing
    for i0 in range(0, n, W):
        inside = i0 + lanes < n
        w, phi = _potential(u, a, problem * n + i0 + lanes, inside)
        mass += w
        there += tl.where(phi < float("inf"), w, 0.0)
        weighed += tl.where(phi < float("inf"), w * phi, 0.0)
    mass_a = tl.sum(mass, 0)
    mean_a = tl.sum(weighed, 0) / tl.sum(there, 0)
    change = nothing
    for i0 in range(0, n, W):
        w, phi = _potential(u, a, problem * n + i0 + lanes, i0 + lanes < n)
        change += _change(w, phi, mean_a, rate_a)
    change_a = _log1p(tl.sum(change, 0) / mass_a) - rate_a * mean_a
    mass, there, weighed = nothing, nothing, nothing
    peak = tl.full([W], -float("inf"), tl.float64)
    for j0 in range(0, m, W):
        inside = j0 + lanes < m
        at = problem * m + j0 + lanes
        w, old, s, new, reached = _moved(psi, log_s, b, kappa, at, inside, COLUMNS)
        mass += w
        there += tl.where(reached < float("inf"), w, 0.0)
        weighed += tl.where(reached < float("inf"), w * reached, 0.0)
        target = _log(w) - old * rate_b
        peak = tl.maximum(peak, tl.where(inside, tl.maximum(s, target), -float("inf")))
    mass_b = tl.sum(mass, 0)
    mean_b = tl.sum(weighed, 0) / tl.sum(there, 0)
    top = finite(tl.max(peak, 0)) if COLUMNS else eps * 0
    change, off, sums, targets = nothing, nothing, nothing, nothing
    for j0 in range(0, m, W):
        inside = j0 + lanes < m
        at = problem * m + j0 + lanes
        w, old, s, new, reached = _moved(psi, log_s, b, kappa, at, inside, COLUMNS)
        change += _change(w, reached, mean_b, rate_b)
        # relaxed rows may begin far above the weights: wrong, but for the next step to mend
        held = s if COLUMNS else tl.where(s < float("inf"), tl.minimum(s, most), s)
        got = exp2((held - top) * LOG2E)
        want = exp2((_log(w) - old * rate_b - top) * LOG2E) if COLUMNS else w
        sums += tl.where(inside, got, 0.0)
        targets += tl.where(inside, want, 0.0)
        off += tl.where(inside, tl.abs(got - want), 0.0)
    change_b = _log1p(tl.sum(change, 0) / mass_b) - rate_b * mean_b
    unequal = _log(mass_a / mass_b)
    unequal = tl.where(tl.abs(unequal) > 1e-14, unequal, 0.0)
    t = (unequal + change_a - change_b) / (rate_a + rate_b)
    # below that plain steps are fast, and the rows' potential has too few digits
    useful = (tl.abs(t) < float("inf")) & (rate_a <= 1) & (rate_b <= 1)
    t = tl.where(useful, t, 0.0)
    wrong = tl.sum(off, 0) / tl.sum(targets, 0)
    wrong = tl.where(wrong > cap, cap, wrong)
    if COLUMNS:
        log_mass = top + _log(tl.sum(sums, 0))
        beyond = ((log_mass <= heaviest) == 0) & ((wrong > 0.5) == 0)
        wrong = tl.where(beyond, float("inf"), wrong)
    tl.store(error + problem, wrong)
    for j0 in range(0, m, W):
        inside = j0 + lanes < m
        at = problem * m + j0 + lanes
        w, old, s, new, reached = _moved(psi, log_s, b, kappa, at, inside, COLUMNS)
        tl.store(residual + at, new - t - old, mask=inside)


def answer(
    psi: Tensor, u: Tensor, log_s: Tensor, a: Tensor, b: Tensor, reg: Tensor,
    relax: tuple[float, float], dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return what a plain step adds to the column potentials (B, m), and their error (B,).

    Args:
        psi: Column potentials g / reg (B, m), float32 or float64.
        u: Scaled row potentials (B, n) that answer them.
        log_s: Logarithms of the plan's column sums (B, m).
        a: Row weights (B, n).
        b: Column weights (B, m).
        reg: Regularisation (B,).
        relax: KL penalties of rows and columns, above zero, one of them finite.
        dtype: Dtype that the plan's mass must not exceed.
    """
    B, n, m = *u.shape, psi.shape[1]
    residual, error = torch.empty_like(psi), psi.new_empty(B)
    most = 0.9 * math.log(torch.finfo(psi.dtype).max)
    heaviest = 0.9 * math.log(torch.finfo(dtype).max)
    rows, columns = (math.isfinite(rho) for rho in relax)
    launch(
        _answer_relaxed, B, psi.contiguous(), u.contiguous(), log_s.contiguous(), a.contiguous(),
        b.contiguous(), reg, residual, error, n, m, float(relax[0]), float(relax[1]), most,
        heaviest, torch.finfo(psi.dtype).max, COLUMNS=columns, ROWS=rows, W=1024, num_warps=8,
        **OPTIONS,
    )  # fmt: skip
    return residual, error
