"""The plain step: how columns answer a sweep, how wrong they are, and a fixed number of such."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem
from sinkhorn_ot.results import Solution, Status
from sinkhorn_ot.sweeps import Repeats, Sweep, Whole, elasticity, weightless


# logarithms of masses that differ by rounding alone
_SAME_MASS = 1e-14


def fixed(sweep: Sweep, n_iter: int, u: Tensor | None = None, v: Tensor | None = None) -> Solution:
    """Run plain sweeps without looking at the result: no check, no branch on data.

    Ends with a column step, as the textbook iteration does. Starts from the scaled potentials v,
    or else from what answers u.
    """
    p, fresh = sweep.problem, u is None and v is None
    log_b = p.b.log()
    n = torch.full_like(p.reg, n_iter, dtype=torch.int64)
    status = [Status.FIXED] * p.shape[0]
    if fresh and isinstance(sweep, Whole) and (found := sweep.whole(n_iter)) is not None:
        return Solution(*found[:2], None, n, status)
    psi = torch.zeros_like(p.b) if v is None else weightless(v, log_b)
    if v is None and u is not None:
        psi = move_columns(p, psi, sweep.log_sum_columns(u) + log_b, log_b)
    u, made = None, 0
    # potentials that are given may be far from all that a kernel can hold
    if fresh and isinstance(sweep, Repeats):
        v, made = sweep.repeat(log_b, n_iter - 1)
        psi = weightless(v, log_b)
    for _ in range(n_iter - made):
        u, log_s = sweep.sweep(u, psi + log_b)
        psi = answer(sweep, u, psi, log_s, log_b)
    assert u is not None
    return Solution(u, psi + log_b, None, n, status)


def answer(sweep: Sweep, u: Tensor, psi: Tensor, log_s: Tensor, log_b: Tensor) -> Tensor:
    """Return where a plain step moves the column potentials, after a sweep."""
    p = sweep.problem
    psi = move_columns(p, psi, log_s, log_b)
    if p.exact or 0 in p.relax:
        return psi
    return psi - level(p, u - p.a.log(), psi, sweep.total)[:, None]


def move_columns(p: Problem, psi: Tensor, log_s: Tensor, log_b: Tensor) -> Tensor:
    """Return the column potentials that answer the column sums; those without weight stay."""
    if p.relax[1] == 0:
        return torch.zeros_like(psi)
    off = log_s - log_b
    moved = psi - off
    if not math.isinf(p.relax[1]):
        moved = elasticity(p)[1][:, None] * moved
    # a sum of zero means that no pair is allowed: nothing to answer
    return torch.where((log_b > -math.inf) & (log_s > -math.inf), moved, psi)


def level(p: Problem, phi: Tensor, psi: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the constant, (B,), that moved from psi to phi makes both sides' masses agree.

    The plan depends on the sum of the potentials only, and the penalties fix its split: in closed
    form, where plain steps would need about rho / reg of them.

    Source: T. Sejourne, F.-X. Vialard, G. Peyre, Faster unbalanced optimal transport: translation
    invariant Sinkhorn and 1-D Frank-Wolfe, AISTATS 2022.
    """
    (rho_a, rho_b), reg = p.relax, p.reg[:, None]
    mass_a, mass_b = total(p.a), p.b.sum(-1)
    # in terms of what changes, so that a large rho has no rounding to magnify
    change_a = total(torch.where(p.a > 0, p.a * (-phi * (reg / rho_a)).expm1(), 0.0)) / mass_a
    change_b = (p.b * (-psi * (reg / rho_b)).expm1()).sum(-1) / mass_b
    unequal = (mass_a / mass_b).log()
    unequal = torch.where(unequal.abs() > _SAME_MASS, unequal, 0.0)
    t = (unequal + change_a.log1p() - change_b.log1p()) / (1 / rho_a + 1 / rho_b) / p.reg
    # below that plain steps are fast, and phi has too few digits
    useful = torch.isfinite(t) & (p.reg <= min(rho_a, rho_b))
    return torch.where(useful, t, 0.0)


def column_error(p: Problem, psi: Tensor, log_s: Tensor) -> Tensor:
    """Return the relative L1 distance of the column sums from what they must be, (B,).

    Exact columns must sum to b; relaxed ones to b exp(-g / rho), their optimality condition.
    """
    if p.relax[1] == 0:
        return torch.zeros_like(p.reg)
    target = p.b
    if not math.isinf(p.relax[1]):
        target = target * (-psi * (p.reg / p.relax[1])[:, None]).exp()
    return (log_s.exp() - target).abs().sum(-1) / target.sum(-1)
