"""A plan scaled from its solver's kernel is the one that its potentials mean."""

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing


def _without_weight(a):
    return torch.where(torch.arange(len(a)) % 3 == 1, 0.0, a)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("shape", [(8, 9), (5, 40), (40, 5)])
@pytest.mark.parametrize("options", [{}, {"unbalanced": 0.1}, {"unbalanced": (None, 0.3)}], ids=str)
def test_it_is_the_exponential_of_its_logarithm(shape, options, zeros):
    p = testing.random(*shape, 0.05)
    a, b = (_without_weight(w) if zeros else w for w in (p.a, p.b))
    r = so.solve(p.cost, 7 * a / a.sum(), 7 * b / b.sum(), 0.05, tol=1e-12, **options)
    assert r.coupling.scaled is not None
    assert r.plan.is_contiguous()
    torch.testing.assert_close(r.plan, r.log_plan.exp(), rtol=1e-10, atol=1e-300)
    assert bool((r.plan[a == 0] == 0).all() and (r.plan[:, b == 0] == 0).all())


def test_it_has_the_shape_and_the_dtype_of_the_problem():
    p = testing.random(6, 7)
    r = so.solve(p.cost.float()[None, None], reg=0.1)
    assert r.plan.shape == (1, 1, 6, 7)
    assert r.plan.dtype == torch.float32


@pytest.mark.parametrize("cost", [torch.inf, 1e4])
def test_what_a_kernel_cuts_off_is_not_taken_from_it(cost):
    p = testing.random(6, 7)
    C = p.cost.clone()
    C[0, 0] = cost
    r = so.solve(C, p.a, p.b, 0.1)
    assert r.coupling.scaled is None
    assert r.plan[0, 0] == 0


def test_it_is_its_own():
    """Who changes a plan in place changes no other."""
    p = testing.random(6, 7)
    r = so.solve(p.cost, p.a, p.b, 0.1)
    before = r.log_plan.exp()
    r.plan.zero_()
    torch.testing.assert_close(so.solve(p.cost, p.a, p.b, 0.1).plan, before)
