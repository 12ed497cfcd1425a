"""Predicted costs: what is nearer, sharper or emptier is priced so, and no price is no number."""

import pytest
import torch

from sinkhorn_ot import testing
from sinkhorn_ot.problem import make
from sinkhorn_ot.solvers.price import price


def batch(count: int = 6, n: int = 60, reg: float = 0.05, *, share: bool = True, weigh: int = 60):
    C = torch.stack([testing.random(n, n, seed=k).cost for k in range(count)])
    a = torch.zeros(count, n, dtype=torch.float64)
    a[:, :weigh] = 1 / weigh
    return make(C[0] if share else C, a, a, reg)


def test_points_without_weight_cost_nothing_alone():
    few, many = price(batch(weigh=10), 1e-9), price(batch(), 1e-9)
    assert (few.afresh < many.afresh).all()
    assert (few.alone < many.alone).all()
    assert few.each == many.each


def test_a_sweep_of_many_is_shared_and_one_kernel_costs_less():
    shared, own = price(batch(), 1e-9), price(batch(share=False), 1e-9)
    assert shared.each < own.each
    assert (shared.sweeps(2) < shared.sweeps(200)).all()
    assert (own.sweeps(200) < shared.sweeps(200)).all()


def test_large_problems_with_costs_of_their_own_go_alone():
    assert price(batch(2, 600, share=False, weigh=600), 1e-9).apart.all()
    assert not price(batch(200, 48, 1.0, weigh=48), 1e-9).apart.any()


def test_sharp_problems_leave_the_others():
    reg = torch.tensor([1.0, 1.0, 1e-3, 1.0], dtype=torch.float64).repeat(16)
    p = batch(64, weigh=50)
    found = price(make(p.cost.rows(0, 60)[0], p.a, p.b, reg), 1e-9)
    assert bool(found.apart[2])
    some = found.select(torch.tensor([2, 3]))
    assert some.afresh.tolist() == found.afresh[2:4].tolist()
    assert some.each == found.each


@pytest.mark.parametrize("tol", [1e-300, 1e-9, 0.5, 1.0, 1e6])
@pytest.mark.parametrize("value", [0.0, 1e-300, 1e300])
def test_no_price_is_no_number(tol, value):
    C = torch.full((5, 6), value, dtype=torch.float64)
    C[0, 0] = 0
    weight = torch.ones(3, 5, dtype=torch.float64) / 5, torch.ones(3, 6, dtype=torch.float64) / 6
    found = price(make(C, *weight, max(value, 1e-300)), tol)
    for t in (found.afresh, found.alone, found.joined, found.guess, found.sweeps(1)):
        assert torch.isfinite(t).all()
        assert (t > 0).all()
