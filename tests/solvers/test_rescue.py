"""Problems that a first try misses, and what helps: an exact start, other steps."""

import math

import numpy as np
import pytest
import torch

import sinkhorn_ot as so


def line():
    """Two bells on a line of 100 points, and a reg so small that annealing loses its way."""
    x = torch.arange(100, dtype=torch.float64)
    bells = [torch.exp(-((x - c) ** 2) / 200) for c in (30, 40)]
    return (x[:, None] - x).square(), *(bell / bell.sum() for bell in bells)


@pytest.mark.slow(8)
def test_an_exact_start_finds_what_annealing_does_not():
    pytest.importorskip("ot", reason="POT's simplex finds the start")
    C, a, b = line()
    r = so.solve(C, a, b, reg=3e-3)
    assert r.converged
    assert float(r.value_linear) == pytest.approx(99.3153061, abs=1e-6)
    assert float((r.plan.sum(1) - a).abs().sum() + (r.plan.sum(0) - b).abs().sum()) < 1e-9


def test_costs_as_large_as_people_write_forbidden():
    """`RandomState(0)`, 30 % of the pairs allowed, the others at 1e12."""
    rng = np.random.RandomState(0)
    C, allowed = rng.rand(50, 50), rng.rand(50, 50) < 0.3
    far = so.solve(np.where(allowed, C, 1e12), reg=0.1)
    never = so.solve(np.where(allowed, C, math.inf), reg=0.1)
    assert far.converged
    assert float(far.value_linear) == pytest.approx(float(never.value_linear), rel=1e-9)


def test_what_was_measured_last_decides():
    """One column: its sum in single precision is above tol, the plan is far below it."""
    x = torch.linspace(0, 1, 90)[:, None]
    for cost in (x, torch.rand(400, 2), torch.rand(13, 200)):
        r = so.solve(cost, reg=1e-3, method="sinkhorn")
        assert r.converged == (float(r.marginal_error) <= 1e-6)
    r = so.solve(x, reg=1e-3, method="sinkhorn")
    assert r.status is so.Status.CONVERGED
