"""Relaxed and free marginals: the judge, POT, optimality, and the formulas of the values."""

import math

import numpy as np
import ot
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing


INF = math.inf
RHO = [(0.3, 0.3), (0.05, 2.0), (1.0, INF), (INF, 1.0), (1e-3, 1e-3), (100.0, 100.0)]


def relaxed(rho):
    return tuple(None if math.isinf(r) else r for r in rho)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("reg", [1.0, 0.05])
@pytest.mark.parametrize("rho", RHO, ids=str)
def test_the_judge(rho, reg, zeros):
    p = testing.random(13, 18, reg, zeros=zeros, seed=4)
    truth = testing.judge(p.cost, p.a, p.b, reg, rho)
    r = so.solve(p.cost, p.a, p.b, reg, unbalanced=relaxed(rho), tol=1e-12)
    assert r.converged
    torch.testing.assert_close(r.plan, truth.plan, atol=1e-11, rtol=0)
    assert float(r.value) == pytest.approx(truth.value, abs=1e-10)
    # at the solution the dual is as high
    assert float(r.gap) == pytest.approx(0, abs=1e-9)


def test_masses_that_differ():
    p = testing.random(13, 18, 0.1)
    truth = testing.judge(p.cost, p.a, 3 * p.b, 0.1, (0.5, 0.5))
    r = so.solve(p.cost, p.a, 3 * p.b, 0.1, unbalanced=0.5, tol=1e-12)
    torch.testing.assert_close(r.plan, truth.plan, atol=1e-11, rtol=0)
    assert float(r.value) == pytest.approx(truth.value, abs=1e-10)


@pytest.mark.parametrize("rho", [(0.4, 0.4), (0.1, 3.0)])
def test_pot(rho):
    p = testing.random(12, 15, 0.1, seed=2)
    a, b, C = p.a.numpy(), p.b.numpy(), p.cost.numpy()
    P = ot.unbalanced.sinkhorn_unbalanced(
        a, b, C, 0.1, rho, reg_type="kl", method="sinkhorn", stopThr=1e-15, numItermax=10**5
    )
    r = so.solve(C, a, b, 0.1, unbalanced=rho, tol=1e-13)
    np.testing.assert_allclose(r.plan, P, atol=1e-12)


@pytest.mark.parametrize("rho", [(0.5, 0.5), (0.2, 3.0)])
def test_no_small_change_is_better(rho):
    p = testing.random(7, 9, 0.2)
    r = so.solve(p.cost, p.a, p.b, 0.2, unbalanced=rho, tol=1e-13)
    C, a, b, P = (t.numpy() for t in (p.cost, p.a, p.b, r.plan))
    rng = np.random.default_rng(0)
    for _ in range(50):
        moved = P * (1 + 1e-3 * rng.standard_normal(P.shape))
        assert testing.objective(moved, C, a, b, 0.2, rho) > float(r.value)


def test_free_columns_are_a_softmax_in_one_pass():
    known = testing.free_columns()
    r = so.solve(known.cost, known.a, known.b, known.reg, unbalanced=(None, 0))
    torch.testing.assert_close(r.plan, known.plan, atol=1e-15, rtol=0)
    assert float(r.value) == pytest.approx(known.value, abs=1e-14)
    assert int(r.n_iter) == 1
    assert r.converged
    assert (r.g == 0).all()


@pytest.mark.parametrize("wide", [False, True])
def test_free_rows_are_a_softmax_of_columns(wide):
    known = testing.free_columns(n=3, m=17) if wide else testing.free_columns(n=17, m=3)
    r = so.solve(known.cost.T, known.b, known.a, known.reg, unbalanced=(0, None), tol=1e-13)
    torch.testing.assert_close(r.plan, known.plan.T, atol=1e-14, rtol=0)
    assert r.converged
    assert int(r.n_iter) <= 2


def test_free_on_both_sides_is_the_kernel():
    p = testing.random(6, 8, 0.2)
    r = so.solve(p.cost, p.a, p.b, 0.2, unbalanced=0)
    K = p.a[:, None] * p.b[None, :] * torch.exp(-p.cost / 0.2)
    torch.testing.assert_close(r.plan, K, atol=1e-15, rtol=0)
    assert int(r.n_iter) == 1
    # min <P, C> + reg KL(P | a b^T) = reg (1 - |K|)
    assert float(r.value) == pytest.approx(0.2 * (1 - float(K.sum())), abs=1e-14)


def test_a_large_penalty_is_an_exact_marginal():
    p = testing.random(6, 8, 0.2)
    exact = so.solve(p.cost, p.a, p.b, 0.2, tol=1e-12)
    nearly = so.solve(p.cost, p.a, p.b, 0.2, unbalanced=1e7, tol=1e-12)
    torch.testing.assert_close(nearly.plan, exact.plan, atol=1e-7, rtol=0)
    same = so.solve(p.cost, p.a, p.b, 0.2, unbalanced=INF, tol=1e-12)
    torch.testing.assert_close(same.plan, exact.plan, atol=0, rtol=0)


def test_a_row_without_partner_stays_at_home():
    p = testing.random(6, 8, 0.2)
    C = p.cost.clone()
    C[2] = INF
    r = so.solve(C, p.a, p.b, 0.2, unbalanced=0.5, tol=1e-12)
    assert (r.plan[2] == 0).all()
    assert r.converged
    truth = testing.judge(C[[0, 1, 3, 4, 5]], p.a[[0, 1, 3, 4, 5]], p.b, 0.2, (0.5, 0.5))
    torch.testing.assert_close(r.plan[[0, 1, 3, 4, 5]], truth.plan, atol=1e-11, rtol=0)
    # its whole mass is paid for
    assert float(r.value) == pytest.approx(truth.value + (0.5 + 0.2) * float(p.a[2]), abs=1e-10)


def test_transposed_problems():
    p = testing.random(6, 9, 0.1)
    r = so.solve(p.cost, p.a, p.b, 0.1, unbalanced=(0.3, 1.0), tol=1e-12)
    t = so.solve(p.cost.T, p.b, p.a, 0.1, unbalanced=(1.0, 0.3), tol=1e-12)
    torch.testing.assert_close(t.plan.T, r.plan, atol=1e-11, rtol=0)


def test_batches_of_relaxed_problems():
    drawn = [testing.random(6, 9, seed=k) for k in range(4)]
    a, b = torch.stack([p.a for p in drawn]), torch.stack([p.b for p in drawn])
    reg = torch.tensor([0.05, 0.1, 0.5, 2.0], dtype=torch.float64)
    r = so.solve(drawn[0].cost, a, b, reg, unbalanced=(0.3, 1.0), tol=1e-12)
    for k in range(4):
        truth = testing.judge(drawn[0].cost, a[k], b[k], float(reg[k]), (0.3, 1.0))
        torch.testing.assert_close(r.plan[k], truth.plan, atol=1e-11, rtol=0)
        assert float(r.value[k]) == pytest.approx(truth.value, abs=1e-10)


@pytest.mark.parametrize("acceleration", [so.Plain(), so.Nesterov(), so.Anderson()], ids=str)
def test_every_acceleration(acceleration):
    p = testing.random(6, 9, 0.1)
    truth = testing.judge(p.cost, p.a, p.b, 0.1, (0.3, 1.0))
    method = so.Sinkhorn(acceleration)
    r = so.solve(p.cost, p.a, p.b, 0.1, unbalanced=(0.3, 1.0), method=method, tol=1e-12)
    torch.testing.assert_close(r.plan, truth.plan, atol=1e-11, rtol=0)


@pytest.mark.parametrize(
    ("rho", "ratio"), [(10.0, 3.0), (1e4, 3.0), (1e4, 1.0), (1e8, 1.0), (1e15, 1.0)], ids=str
)
@pytest.mark.parametrize("n_iter", [None, 60])
def test_a_large_penalty_costs_no_sweeps(rho, ratio, n_iter):
    """The constant that splits between the potentials is found in closed form.

    As rho grows the plan becomes the exact one between masses that are equal: the geometric mean of
    two, weighted by the penalties.
    """
    p = testing.random(13, 18, 0.1)
    how = {"tol": 1e-10} if n_iter is None else {"n_iter": n_iter}
    r = so.solve(p.cost, p.a, ratio * p.b, 0.1, unbalanced=rho, **how)
    if n_iter is None:
        assert r.converged
        assert int(r.n_iter) < 60
        assert float(r.marginal_error) < 1e-9
    # a plain step is as slow as it is without penalties
    assert float(r.marginal_error) < 1e-3
    assert float(r.gap) == pytest.approx(0, abs=1e-3 * max(1.0, abs(float(r.value))))
    if rho >= 1e4:
        assert float(r.plan.sum()) == pytest.approx(ratio**0.5, rel=1e-3)


def test_penalties_on_unequal_masses_beyond_what_digits_carry():
    """The potentials hold rho * log 3: it is said how far that lets the marginals come."""
    p = testing.random(13, 18, 0.1)
    r = so.solve(p.cost, p.a, 3 * p.b, 0.1, unbalanced=(1e3, 1e7), on_fail="ignore")
    # of the two masses, 1 and 3, the one that costs less to leave is left
    assert float(r.plan.sum()) == pytest.approx(3.0, rel=1e-3)
    assert bool(r.converged) == (float(r.marginal_error) <= 1e-9)
    assert float(r.marginal_error) < 1e-5


def test_a_huge_penalty_is_an_exact_marginal():
    p = testing.random(13, 18, 0.1)
    exact = so.solve(p.cost, p.a, p.b, 0.1, tol=1e-12)
    r = so.solve(p.cost, p.a, p.b, 0.1, unbalanced=1e15, tol=1e-12)
    torch.testing.assert_close(r.plan, exact.plan, atol=1e-10, rtol=0)
    assert float(r.value) == pytest.approx(float(exact.value), abs=1e-9)


@pytest.mark.parametrize("rho", [(0, None), (None, 0), (0, 0), (0, 0.5), (0.5, 0)], ids=str)
@pytest.mark.parametrize("reg", [1e-3, 1.0])
def test_beside_a_free_marginal_one_sweep_is_the_answer(rho, reg):
    p = testing.random(13, 18, reg)
    r = so.solve(p.cost, p.a, p.b, reg, unbalanced=rho)
    assert r.converged
    assert int(r.n_iter) == 1


@pytest.mark.parametrize("rho", [(None, 1e3), (1e3, None), (None, 3.0), (3.0, None)], ids=str)
@pytest.mark.parametrize("ratio", [1.0, 1.3])
def test_a_large_penalty_beside_an_exact_marginal(rho, ratio):
    """The exact side decides the mass; the other's potential holds rho times its logarithm."""
    p = testing.random(13, 18, 0.1)
    r = so.solve(p.cost, p.a, ratio * p.b, 0.1, unbalanced=rho, tol=1e-10)
    assert r.converged
    assert int(r.n_iter) < 60
    assert float(r.plan.sum()) == pytest.approx(1.0 if rho[0] is None else ratio, rel=1e-9)
    # the conditions of an optimum, and no gap
    first = p.a if rho[0] is None else p.a * (-r.f / rho[0]).exp()
    second = ratio * p.b if rho[1] is None else ratio * p.b * (-r.g / rho[1]).exp()
    torch.testing.assert_close(r.plan.sum(1), first, atol=1e-9, rtol=0)
    torch.testing.assert_close(r.plan.sum(0), second, atol=1e-9, rtol=0)
    assert float(r.gap) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("n_iter", [None, 4])
def test_a_point_without_weight_may_be_out_of_range(n_iter):
    p = testing.random(4, 3, 0.01)
    C, b = p.cost.clone(), torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)
    # nobody goes there, and its price over rho has no exponential
    C[:, 1] -= 50
    r = so.solve(C, p.a, b, 0.01, unbalanced=0.005, n_iter=n_iter)
    few = so.solve(C[:, ::2], p.a, b[::2], 0.01, unbalanced=0.005, n_iter=n_iter)
    for name in ("value", "dual_value", "gap", "marginal_error"):
        assert float(getattr(r, name)) == pytest.approx(float(getattr(few, name)), abs=1e-12)


@pytest.mark.parametrize("rho", [(0, 2.0), (2.0, 0), (0, 0), (0, None)], ids=str)
@pytest.mark.parametrize("given", ["f", "g", "both"])
def test_a_start_says_nothing_of_a_free_side(rho, given):
    p = testing.random(5, 3, 0.5)
    start = torch.arange(5.0).double() if given != "g" else None, None
    start = start[0], torch.arange(3.0).double() if given != "f" else None
    r = so.solve(p.cost, p.a, p.b, 0.5, unbalanced=rho, init=start)
    want = so.solve(p.cost, p.a, p.b, 0.5, unbalanced=rho)
    assert r.converged
    torch.testing.assert_close(r.plan, want.plan, atol=1e-8, rtol=0)


def test_masses_out_of_range_have_an_error_that_is_a_number():
    """One sweep from nothing: what is asked for is e^470000, and what is there is nothing."""
    p = testing.random(19, 2)
    C = p.cost - 2.87e6
    r = so.solve(C, p.a, p.b, 0.43, unbalanced=5.76, n_iter=1)
    assert float(r.marginal_error) == math.inf


@pytest.mark.parametrize("start", [30.0, 47.4, 50.0, 63.0, 100.0])
def test_a_start_whose_masses_leave_the_range_is_left_again(start):
    C = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    r = so.solve(C, reg=0.1, unbalanced=0.1, init=(None, [start, start]))
    assert r.converged
    torch.testing.assert_close(r.plan, so.solve(C, reg=0.1, unbalanced=0.1).plan)


def test_a_plan_that_float32_cannot_hold_is_told():
    C = -60 + 0.1 * torch.tensor([[0.0, 1], [2, 3]])
    r = so.solve(C, reg=0.1, unbalanced=0.2, on_fail="ignore")
    assert not r.converged
    assert so.solve(C.double(), reg=0.1, unbalanced=0.2).converged


def test_nobody_with_a_partner_stays_where_he_is():
    r = so.solve(torch.tensor([[1.0, math.inf]]), None, [0.0, 1.0], reg=0.1, unbalanced=1.0)
    assert r.converged
    assert float(r.plan.sum()) == 0


@pytest.mark.parametrize("method", ["auto", "sinkhorn"])
@pytest.mark.parametrize("rho", [0.1, (1.0, None), (0, 1.0)], ids=str)
@pytest.mark.parametrize("scale", [1e4, 1e300])
def test_a_start_from_which_nothing_leads_on_is_left(method, rho, scale):
    """Potentials far out of range end in no number; no start converges."""
    p = testing.random(30, 31, 0.1)
    far = scale * torch.randn(30, dtype=torch.float64), scale * torch.randn(31, dtype=torch.float64)
    want = so.solve(p.cost, p.a, p.b, 0.1, unbalanced=rho)
    for init in (far, (far[0], None), (None, far[1])):
        r = so.solve(p.cost, p.a, p.b, 0.1, unbalanced=rho, init=init, method=method)
        assert r.converged
        torch.testing.assert_close(r.plan, want.plan, atol=1e-8, rtol=0)
    assert (
        int(
            so.solve(p.cost, reg=0.1, unbalanced=rho, init=far, max_iter=1, on_fail="ignore").n_iter
        )
        == 1
    )
    # a batch, of which one problem starts well
    g = torch.stack([far[1], want.g])
    C = torch.stack([p.cost, p.cost])
    r = so.solve(C, p.a, p.b, 0.1, unbalanced=rho, init=(None, g), method=method)
    assert bool(r.converged.all())


@pytest.mark.parametrize("method", ["auto", "sinkhorn"])
@pytest.mark.parametrize("n", [1, 3])
def test_masses_below_all_numbers_are_not_equal_for_that(method: str, n: int):
    """Plan and targets underflow alike beside tiny penalties; after few sweeps neither is right."""
    C = torch.rand(25, 20, dtype=torch.float64) + 0.01
    f, g = 0.02 * torch.randn(25, dtype=torch.float64), 0.02 * torch.randn(20, dtype=torch.float64)
    options = {"reg": 4e-6, "unbalanced": (1e-6, 2e-7), "init": (f, g), "method": method}
    few = so.solve(C, max_iter=n, on_fail="ignore", **options)
    many = so.solve(C, on_fail="ignore", **options)
    assert many.converged
    far = float(torch.cat([few.f - many.f, few.g - many.g]).abs().max())
    assert far > 1e-6
    assert not few.converged
    assert float(few.marginal_error) > 1e-3
