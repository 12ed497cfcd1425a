"""Costs so large that people write them for "forbidden": they are, where nothing could use them."""

import math

import pytest
import torch

import sinkhorn_ot as so


HUGE = [1e15, 1e20, 1e38, 1e308]


def two(far, seed=0, n=20):
    """Return a cost whose pairs are far or not, by a coin, and the same with inf."""
    g = torch.Generator().manual_seed(seed)
    C = torch.rand(n, n, generator=g, dtype=torch.float64)
    allowed = torch.rand(n, n, generator=g) < 0.4
    return C.where(allowed, far), C.where(allowed, math.inf)


@pytest.mark.parametrize("far", HUGE)
@pytest.mark.parametrize("rho", [None, 1.0, (None, 1.0), (0, 1.0)], ids=str)
@pytest.mark.parametrize("offset", [0.0, -3.0])
def test_is_what_inf_is(far, rho, offset):
    C, D = two(far)
    r = so.solve(C + offset, reg=0.1, unbalanced=rho)
    want = so.solve(D + offset, reg=0.1, unbalanced=rho)
    assert r.converged
    torch.testing.assert_close(r.plan, want.plan, rtol=1e-12, atol=1e-15)
    assert float(r.value) == pytest.approx(float(want.value), abs=1e-12)
    assert "count" in r.message
    assert "forbidden" in r.message
    assert r.problem.far == float(D[math.inf > D].max() + offset)


def test_the_known_value():
    g = torch.Generator().manual_seed(1)
    C = torch.rand(6, 6, generator=g, dtype=torch.float64)
    near = C.where(torch.eye(6, dtype=torch.bool), torch.tensor(1e20, dtype=torch.float64))
    r = so.solve(near, reg=0.1)
    assert float(r.value_linear) == pytest.approx(float(C.diagonal().mean()), rel=1e-12)


@pytest.mark.parametrize("far", [1e6, 1e12])
def test_what_is_resolved_stays(far):
    C, _ = two(far)
    assert so.solve(C, reg=0.1).problem.far == math.inf


def test_float32_and_batches():
    C, D = two(1e30)
    C, D = (torch.stack([X, X.flip(0)]).float() for X in (C, D))
    r, want = so.solve(C, reg=0.1), so.solve(D, reg=0.1)
    assert r.converged.all()
    torch.testing.assert_close(r.plan, want.plan, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("rho", [None, 1.0])
def test_offsets_and_scales_are_the_costs_own(rho):
    C, D = two(1e30)
    scale = 1e-7
    r = so.solve(C * scale, reg=0.1 * scale, unbalanced=rho and rho * scale)
    want = so.solve(D * scale, reg=0.1 * scale, unbalanced=rho and rho * scale)
    torch.testing.assert_close(r.plan, want.plan, rtol=1e-12, atol=1e-15)


def test_two_kinds_of_far_keep_the_nearer():
    """1e5 is resolved beside 1: only 1e20 has to go."""
    C, _ = two(1e20)
    C[C.min() == C] = 1e5
    assert so.solve(C, reg=0.1, on_fail="ignore").problem.far == 1e5


def test_without_a_gap_it_is_refused():
    C = torch.logspace(0, 20, 400, dtype=torch.float64).reshape(20, 20)
    with pytest.raises(ValueError, match=r"reg must be at least .* to resolve cost / reg, got 0.1"):
        so.solve(C, reg=0.1)


def test_a_point_with_far_pairs_only_is_refused():
    C, _ = two(1e20)
    C[3] = 1e20
    with pytest.raises(ValueError, match="reg must be at least"):
        so.solve(C, reg=0.1)
    # a relaxed point stays where it is
    r = so.solve(C, reg=0.1, unbalanced=1.0)
    assert r.converged
    assert float(r.plan[3].sum()) == 0


def test_no_plan_without_them_is_told():
    """Two rows that share one column cannot both send: the far pairs would have to."""
    C = torch.full((3, 3), 1e20, dtype=torch.float64)
    C[0, 0] = C[1, 0] = C[2] = torch.tensor(0.5)
    with pytest.warns(so.ConvergenceWarning, match=r"cost more than 0\.5 counted as forbidden"):
        r = so.solve(C, reg=0.1)
    assert r.status is so.Status.INFEASIBLE


def test_the_callers_cost_stays():
    C, _ = two(1e20)
    before = C.clone()
    so.solve(C, reg=0.1).value  # noqa: B018
    assert torch.equal(C, before)


@pytest.mark.parametrize("turned", [False, True])
def test_a_point_that_has_none_but_far_pairs_is_named(turned):
    C = torch.tensor([[0.0, 1.0, 2.0], [1e20, 1e20, 1e20], [1.0, 0.0, 1.0]], dtype=torch.float64)
    kind = "column" if turned else "row"
    said = f"reg must be at least .*; {kind} 1 has none but such costs: subtract a constant"
    with pytest.raises(ValueError, match=said):
        so.solve(C.mT if turned else C, reg=0.1)
    C[1] -= 1e20
    assert so.solve(C.mT if turned else C, reg=0.1).converged
    with pytest.raises(ValueError, match="by inf$"):
        so.solve(torch.rand(300, 300), reg=1e-17)
