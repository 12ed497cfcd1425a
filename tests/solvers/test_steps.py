"""The plain step and its error, against formulas of a dense plan."""

import math

import pytest
import torch

from sinkhorn_ot import testing
from sinkhorn_ot.problem import make
from sinkhorn_ot.solvers.steps import column_error, fixed, level, parted
from sinkhorn_ot.sweeps.reference import Reference


@pytest.mark.parametrize("mass", [1e-6, 1.0, 1e8])
@pytest.mark.parametrize("unbalanced", [None, (0.5, None), (None, 0.5), (0.5, 2.0), (None, 0.0)])
def test_the_error_is_relative_to_the_mass_that_columns_must_have(mass, unbalanced):
    p = testing.random(7, 5)
    posed = make(p.cost, mass * p.a, mass * p.b, p.reg, unbalanced)
    psi = 0.1 * torch.randn(1, 5, dtype=torch.float64)
    v = psi + posed.b.log()
    u, log_s = Reference(posed).sweep(None, v)
    columns = torch.exp(u[0, :, None] + v - p.cost / p.reg).sum(0)
    rho = posed.relax[1]
    # what is relaxed must have b exp(-g / rho), and what is free whatever it has
    want = mass * p.b * torch.exp(-psi[0] * p.reg / rho) if rho else columns
    error = (columns - want).abs().sum() / want.sum()
    assert math.isinf(rho) or not rho or float(error) > 0.01
    torch.testing.assert_close(column_error(posed, psi, log_s)[0], error, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("penalties", [(0.3, 2.0), (5.0, 0.2), (1.0, 1.0)])
def test_the_level_makes_the_masses_of_both_sides_agree(penalties):
    """At the optimum both marginals sum to the plan's mass; what carries nothing has no say."""
    p = testing.random(7, 5)
    posed = make(p.cost, 3 * p.a, p.b, p.reg, penalties)
    phi, psi = (torch.randn(1, k, dtype=torch.float64) for k in (7, 5))
    phi[0, 2], psi[0, 4] = math.inf, math.inf
    t = level(posed, phi, psi, lambda x: x.sum(-1))
    masses = [
        float((w * torch.exp(-p.reg * x / rho)).sum())
        for w, x, rho in zip((posed.a, posed.b), (phi + t, psi - t), penalties, strict=True)
    ]
    assert masses[0] == pytest.approx(masses[1], rel=1e-12)


@pytest.mark.parametrize("unbalanced", [1.0, (0.3, 0.0), (2.0, None), (None, 0.5)])
def test_what_nobody_looked_at_is_parted_by_what_could_not_move(unbalanced):
    """As on an accelerator, which finds out only afterwards who had no partner."""
    p = testing.random(6, 5)
    C = torch.stack([p.cost, p.cost])
    first, second = unbalanced if isinstance(unbalanced, tuple) else (unbalanced, unbalanced)
    if first is not None:
        C[0, 2] = math.inf
    if second is not None:
        C[1, :, 3] = math.inf
    told = make(C, p.a, p.b, p.reg, unbalanced)
    unseen = make(C, p.a, p.b, p.reg, unbalanced, values=False)
    assert unseen.aside is None
    left = parted(unseen, fixed(Reference(unseen), 5))
    for got, want in zip((left.a, left.b, *left.aside), (told.a, told.b, *told.aside), strict=True):
        torch.testing.assert_close(got, want)
    # who has looked has nothing to learn
    assert parted(told, fixed(Reference(told), 5)) is told
