"""The plain step: how columns answer a sweep, how wrong they are, and a fixed number of such."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem
from sinkhorn_ot.results import Solution, Status, relative
from sinkhorn_ot.sweeps import Repeats, Sweep, Whole, elasticity, weightless


# logarithms of masses that differ by rounding alone
_SAME_MASS = 1e-14
# the share of a format's exponents that masses may use: values are masses times potentials
HELD = 0.9
# digits that a sum may lose
_DIGITS = 100
# a constant that steps find by themselves, in units of reg; how often it is doubled, into how many
# parts the interval is divided that must hold it, and how often
_NEAR, _DOUBLINGS, _PARTS, _ROUNDS = 0.1, 24, 17, 4
# relative error below which masses are about what they will be
_SETTLED = 0.5


def fixed(sweep: Sweep, n_iter: int, u: Tensor | None = None, v: Tensor | None = None) -> Solution:
    """Run plain sweeps without looking at the result: no check, no branch on data.

    Ends with a column step, as the textbook iteration does. Starts from the scaled potentials v,
    or else from what answers u.
    """
    p, fresh = sweep.problem, u is None and v is None
    n = torch.full_like(p.reg, n_iter, dtype=torch.int64)
    status = [Status.FIXED] * p.shape[0]
    if fresh and isinstance(sweep, Whole) and (found := sweep.fixed(n_iter)) is not None:
        return Solution(*found, None, n, status)
    log_b = p.b.log()
    psi = torch.zeros_like(p.b) if v is None else weightless(v, log_b)
    if v is None and u is not None:
        psi = move_columns(p, psi, sweep.log_sum_columns(u) + log_b, log_b)
    u, log_s, made = None, None, 0
    # potentials that are given may be far from all that a kernel can hold
    if fresh and isinstance(sweep, Repeats):
        v, made = sweep.repeat(log_b, n_iter - 1)
        psi = weightless(v, log_b)
    for _ in range(n_iter - made):
        u, log_s = sweep.sweep(u, psi + log_b)
        psi = answer(sweep, u, psi, log_s, log_b)
    assert u is not None
    assert log_s is not None
    # as rows do, columns that no pair allows say so
    v = torch.where(log_s > -math.inf, psi + log_b, log_s)
    return Solution(u, v, None, n, status)


def parted(p: Problem, found: Solution) -> Problem:
    """Return a problem whose values nobody looked at, less what its solution could not move."""
    if p.exact or p.bounds.low > -math.inf:
        return p
    sides = zip((found.u, found.v), p.relax, strict=True)
    # nan is a penalty of another kind
    rows, columns = (
        torch.zeros_like(scaled, dtype=torch.bool) if rho == math.inf else torch.isneginf(scaled)
        for scaled, rho in sides
    )
    return p.without(rows, columns)


def answer(sweep: Sweep, u: Tensor, psi: Tensor, log_s: Tensor, log_b: Tensor) -> Tensor:
    """Return where a plain step moves the column potentials, after a sweep."""
    p = sweep.problem
    psi = move_columns(p, psi, log_s, log_b)
    if p.one_mass or 0 in p.relax:
        return psi
    if p.penalised:
        return psi - shared(p, u - p.a.log(), psi)
    # what no pair allows carries nothing, as if its price had no end
    phi = torch.where(u > -math.inf, u - p.a.log(), math.inf)
    reached = torch.where(log_s > -math.inf, psi, math.inf)
    return psi - level(p, phi, reached, sweep.total)[:, None]


def move_columns(p: Problem, psi: Tensor, log_s: Tensor, log_b: Tensor) -> Tensor:
    """Return the column potentials that answer the column sums; those without weight stay."""
    if p.relax[1] == 0:
        return torch.zeros_like(psi)
    off = log_s - log_b
    moved = psi - off
    if (penalty := p.penalties[1]) is not None:
        # columns without weight offer nothing, whatever their numbers say
        offered = torch.where(log_s > -math.inf, -moved, -math.inf)
        moved = penalty.answer(offered, p.b, p.reg[:, None])
    elif not math.isinf(p.relax[1]):
        moved = elasticity(p, 1)[:, None] * moved
    # a sum of zero means that no pair is allowed: nothing to answer
    return torch.where((log_b > -math.inf) & (log_s > -math.inf), moved, psi)


def level(p: Problem, phi: Tensor, psi: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the constant, (B,), that moved from psi to phi makes both sides' masses agree.

    The plan depends on the sum of the potentials only, and the penalties fix its split: in closed
    form, where plain steps would need about rho / reg of them. Points that carry nothing have inf.

    Source: T. Sejourne, F.-X. Vialard, G. Peyre, Faster unbalanced optimal transport: translation
    invariant Sinkhorn and 1-D Frank-Wolfe, AISTATS 2022.
    """
    rho_a, rho_b = p.relax
    change_a, mass_a = _log_change(p.a, phi, p.reg / rho_a, total)
    change_b, mass_b = _log_change(p.b, psi, p.reg / rho_b, lambda x: x.sum(-1))
    unequal = (mass_a / mass_b).log()
    unequal = torch.where(unequal.abs() > _SAME_MASS, unequal, 0.0)
    t = (unequal + change_a - change_b) / (1 / rho_a + 1 / rho_b) / p.reg
    # below that plain steps are fast, and phi has too few digits
    useful = torch.isfinite(t) & (p.reg <= min(rho_a, rho_b))
    return torch.where(useful, t, 0.0)


def shared(p: Problem, phi: Tensor, psi: Tensor) -> Tensor:
    """Return the same constant, (B, 1), beside penalties of any kind: searched for, if it is large.

    Steps alone would drift towards it by as little as the logarithm of what the masses differ by.
    Close to it they are fast, and it is left to them.
    """
    reg = p.reg[:, None]
    sides = [
        (side, torch.where((held := weight > 0) & scaled.isfinite(), scaled * reg, 0.0), held)
        for side, (scaled, weight) in enumerate(((phi, p.a), (psi, p.b)))
    ]

    def unequal(t: Tensor) -> Tensor:
        """Return by what the mass that the rows want exceeds the columns', for t (K, B, 1)."""
        rows, columns = (
            torch.where(held, _wanted(p, side, f - t if side else f + t), 0.0).sum(-1, keepdim=True)
            for side, f, held in sides
        )
        # sums that should be one may differ by their rounding
        apart, digit = rows - columns, _DIGITS * torch.finfo(reg.dtype).eps
        return torch.where(apart.abs() <= digit * torch.minimum(rows, columns), 0.0, apart)

    near = _NEAR * reg * reg.new_tensor([-1.0, 1.0])[:, None, None]
    less, more = unequal(near)
    far = (less < 0) | (more > 0)
    if far.device.type == "cpu" and not bool(far.any()):
        return torch.zeros_like(reg)
    sizes = _NEAR * reg * 2.0 ** torch.arange(_DOUBLINGS, dtype=reg.dtype, device=reg.device)
    grid = torch.cat([-sizes.flip(-1), sizes], -1).t()[..., None]
    low = high = grid[0]
    for _ in range(_ROUNDS):
        k = (unequal(grid) > 0).sum(0, keepdim=True)
        low, high = (grid.gather(0, j.clamp(0, len(grid) - 1))[0] for j in (k - 1, k))
        parts = torch.linspace(0.0, 1.0, _PARTS, dtype=reg.dtype, device=reg.device)
        grid = low + (high - low) * parts[:, None, None]
    return torch.where(far, (low + high) / 2, 0.0) / reg


def _wanted(p: Problem, side: int, potential: Tensor) -> Tensor:
    """Return the marginal that one side wants at potentials (K, B, n), in units of the cost."""
    rho, weight = p.relax[side], (p.a, p.b)[side]
    if (penalty := p.penalties[side]) is not None:
        return penalty.wanted(potential, weight)
    return weight if math.isinf(rho) else weight * (-potential / rho).exp()


def _log_change(
    weight: Tensor, potential: Tensor, rate: Tensor, total: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return log <w, exp(-rate * potential)> / |w|, (B,), with w = 0 where it is inf, and |w|.

    In terms of what changes, so that a small rate has no rounding to lose digits to, and around the
    mean, so that a large offset stays in range.
    """
    there = potential < math.inf
    held = torch.where(there, potential, 0.0)
    # sums are asked for together: each may be one over ranks
    moment, reached = total(torch.stack((weight * held, torch.where(there, weight, 0.0))))
    mean = moment / reached
    change = torch.expm1((mean[:, None] - held) * rate[:, None])
    change = torch.where(there, change, -1.0)
    off, mass = total(torch.stack((weight * change, weight)))
    return torch.log1p(off / mass) - rate * mean, mass


def column_error(p: Problem, psi: Tensor, log_s: Tensor) -> Tensor:
    """Return the relative L1 distance of the column sums from what they must be, (B,).

    Exact columns must sum to b; relaxed ones to b exp(-g / rho), their optimality condition; those
    with another penalty to what they would after a plain step. Masses out of range have an error of
    inf, but only once they are about what they will be.
    """
    if p.exact:
        return (log_s.exp() - p.b).abs().sum(-1) / p.b.sum(-1)
    rho, most = p.relax[1], torch.finfo(p.work).max
    if math.isinf(rho):
        # relaxed rows may begin far above the weights: wrong, but for the next step to mend
        held = torch.where(log_s < math.inf, log_s.clamp(max=HELD * math.log(most)), log_s)
        return ((held.exp() - p.b).abs().sum(-1) / p.b.sum(-1)).clamp(max=most)
    if p.penalties[1] is not None:
        log_t = log_s + (move_columns(p, psi, log_s, p.b.log()) - psi)
    else:
        log_t = log_s if rho == 0 else p.b.log() - psi * (p.reg / rho)[:, None]
    # without the largest exponent no scale is too large or too small
    top = torch.maximum(log_s, log_t).amax(-1, keepdim=True)
    top = top.masked_fill(top == -math.inf, 0.0)
    s, t = (log_s - top).exp(), (log_t - top).exp()
    error = relative((s - t).abs().sum(-1), t.sum(-1)).clamp(max=most)
    log_mass = top[:, 0] + s.sum(-1).log()
    beyond = ~(log_mass <= HELD * math.log(torch.finfo(p.dtype).max)) & ~(error > _SETTLED)
    return error.masked_fill(beyond, math.inf)
