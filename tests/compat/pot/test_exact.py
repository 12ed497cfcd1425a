"""POT's `emd` and `emd2`: what POT's own tests say of them, and POT beside."""

import math

import numpy as np
import ot as theirs
import pytest
import torch
from compat.pot.problems import problem

import sinkhorn_ot as so
import sinkhorn_ot.compat.pot as ot


def test_gives_the_plans_of_pot():
    """Plans are unique for random costs."""
    for seed in range(100):
        a, b, M = problem(3 + seed % 17, 2 + seed % 23, seed)
        P, log = ot.emd(a, b, M, log=True)
        for got in (P, ot.emd(a, b, M)):
            np.testing.assert_allclose(got, theirs.emd(a, b, M), atol=1e-12)
        cost = theirs.emd2(a, b, M)
        for got in (log["cost"], ot.emd2(a, b, M), ot.emd2(a, b, M, log=True)[0]):
            assert got == pytest.approx(cost, rel=1e-12)


@pytest.mark.parametrize("size", [1e-7, 1e-12, 1e-14, 1e-30, 1e20])
def test_small_and_large_costs_have_the_same_plans(size):
    for seed, (n, m) in enumerate([(2, 3), (4, 5), (30, 40), (260, 257)]):
        a, b, M = problem(n, m, seed)
        best = ot.emd2(a, b, M, log=True)[0]
        assert ot.emd2(a, b, M * size) == pytest.approx(best * size, rel=1e-9, abs=0)
        assert (ot.emd(a, b, M * size) * M).sum() == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("size", [1e-9, 1e-13])
def test_one_large_cost_among_small_ones_takes_no_digits(size):
    for seed in range(5):
        a, b, M = problem(30, 40, seed)
        M *= size
        M[seed, 0] = 1.0
        best = so.solve_exact(M, a, b)
        assert best.status is so.Status.OPTIMAL
        assert ot.emd2(a, b, M) == pytest.approx(float(best.value), rel=1e-9, abs=0)


@pytest.mark.parametrize("n", [20, 300])
def test_equal_weights_are_matched(n):
    x = np.random.default_rng(n).random((n, 12))
    y, a = x[::-1] + 0.01, np.full(n, 1 / n)
    M = ((x[:, None] - y) ** 2).sum(-1)
    np.testing.assert_allclose(ot.emd(a, a, M), np.eye(n)[::-1] / n, atol=1e-12)
    assert ot.emd2(a, a, M) == pytest.approx(12e-4, rel=1e-9)


def test_potentials_prove_the_plan():
    for centred in (True, False):
        a, b, M = problem(15, 11)
        P, log = ot.emd(a, b, M, log=True, center_dual=centred)
        u, v = log["u"], log["v"]
        assert (M - u[:, None] - v).min() > -1e-12
        assert a @ u + b @ v == pytest.approx((P * M).sum(), rel=1e-12)
        assert (log["warning"], log["result_code"]) == (None, 1)
        assert log["result"].status is so.Status.OPTIMAL
        if centred:
            assert a @ u == pytest.approx(b @ v)
            _, other = theirs.emd(a, b, M, log=True)
            np.testing.assert_allclose(u, other["u"], atol=1e-8)


def test_points_without_weight():
    a, b, M = problem()
    a[2], b[:4] = 0.0, 0.0
    a, b = a / a.sum(), b / b.sum()
    P, log = ot.emd(a, b, M, log=True)
    for got in (P, ot.emd(a, b, M)):
        np.testing.assert_allclose(got, theirs.emd(a, b, M), atol=1e-12)
    # potentials of theirs are lowered by more than needed, or not by enough
    assert (M - log["u"][:, None] - log["v"]).min() > -1e-12
    assert ot.emd2(a, b, M) == pytest.approx(float(log["cost"]))


def test_many_targets():
    a, b, M = problem(targets=3)
    costs = ot.emd2(a, b, M)
    assert isinstance(costs, list)
    np.testing.assert_allclose(costs, theirs.emd2(a, b, M), rtol=1e-12)
    found = ot.emd2(a, b, M, return_matrix=True)
    for k, (cost, log) in enumerate(found):
        assert cost == pytest.approx(costs[k])
        np.testing.assert_allclose(log["G"].sum(0), b[:, k])


@pytest.mark.parametrize("nothing", [[], np.zeros(0), None])
def test_no_weights_are_uniform(nothing):
    _, _, M = problem(8, 8)
    P = ot.emd(nothing, nothing, M)
    np.testing.assert_allclose(P, theirs.emd(np.full(8, 1 / 8), np.full(8, 1 / 8), M), atol=1e-12)
    assert ot.emd2(nothing, nothing, M) == pytest.approx((P * M).sum())


@pytest.mark.parametrize("kind", [np.float32, torch.float32, torch.float64, torch.bfloat16])
def test_answers_in_the_kind_of_the_weights(kind):
    a, b, M = problem()
    tensors = isinstance(kind, torch.dtype)
    w = [torch.tensor(t, dtype=kind) if tensors else t.astype(kind) for t in (a, b)]
    M = torch.tensor(M) if tensors else M
    if kind is torch.bfloat16:
        # as far apart as its digits
        w = [torch.full((12,), 1.0, dtype=kind), torch.full((9,), 12 / 9, dtype=kind)]
    P, log = ot.emd(*w, M, log=True, check_marginals=False)
    assert P.dtype == log["u"].dtype == ot.emd2(*w, M, check_marginals=False).dtype == kind
    assert ot.emd(*w, M, check_marginals=False).dtype == kind


def test_whole_numbers_stay_whole():
    a = np.array([1, 2, 1])
    M = np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    for call in (ot, theirs):
        with pytest.warns(UserWarning, match="integer|whole numbers"):
            P = call.emd(a, a, M)
        assert P.dtype == a.dtype
        np.testing.assert_array_equal(P, np.diag(a))


def test_derivatives_are_plan_and_potentials():
    a, b, M = (torch.tensor(t, requires_grad=True) for t in problem())
    cost, log = ot.emd2(a, b, M, log=True, return_matrix=True)
    by_a, by_b, by_M = torch.autograd.grad(cost, (a, b, M))
    others = [t.detach().clone().requires_grad_() for t in (a, b, M)]
    theirs.emd2(*others).backward()
    torch.testing.assert_close(by_M, others[2].grad)
    torch.testing.assert_close(by_M, log["G"].detach())
    # up to a constant
    for one, other in ((by_a, others[0].grad), (by_b, others[1].grad)):
        torch.testing.assert_close(one - one.mean(), other - other.mean())
    with pytest.raises(RuntimeError, match="plan of solve_exact has no derivative"):
        ot.emd(a, b, M).sum().backward()


def test_masses():
    a, b, M = problem()
    for near in (1 + 1e-7, 1 + 1e-6):
        P = ot.emd(a, near * b, M)
        np.testing.assert_allclose(P.sum(0), b, rtol=1e-12)
    for call in (ot.emd, ot.emd2):
        with pytest.raises(ValueError, match="a and b must have the same total mass"):
            call(a, 1.1 * b, M)
    P = ot.emd(a, 1.1 * b, M, check_marginals=False)
    np.testing.assert_allclose(P, theirs.emd(a, 1.1 * b, M, check_marginals=False), atol=1e-12)


def test_warns_of_few_pivots():
    a, b, M = problem(60, 50)
    with pytest.warns(so.ConvergenceWarning, match="numItermax was reached"):
        _, log = ot.emd(a, b, M, numItermax=1, log=True)
    assert log["result_code"] == 3
    assert "Ran out" in log["warning"]


def test_forbidden_pairs():
    a, b, M = problem()
    M[0, :4] = math.inf
    P = ot.emd(a, b, M)
    assert P[0, 4:].sum() == pytest.approx(a[0])
    with pytest.raises(ValueError, match="M must leave a plan: rows .0. hold"):
        ot.emd(np.r_[0.9, np.full(11, 0.1 / 11)], b, M)


BAD = {
    "costs": ({"M": np.full((12, 9), np.nan)}, "M must be a number"),
    "shape": ({"a": np.full(5, 0.2)}, r"a must have shape \(..., 12\)"),
    "negative": ({"b": np.array([2.0, -1.0, *np.zeros(7)])}, "b must be non-negative"),
    "pivots": ({"numItermax": 0}, "numItermax must be a whole number"),
    "sparse": ({"M": torch.ones(12, 9).to_sparse(), "a": [], "b": []}, "must be dense"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("call", [ot.emd, ot.emd2])
def test_bad_arguments_are_named(call, name):
    more, why = BAD[name]
    a, b, M = problem()
    with pytest.raises(ValueError, match=why):
        call(**({"a": a, "b": b, "M": M} | more))


def test_negative_weights_are_called_that():
    a, b, M = problem()
    for call in (ot.emd, ot.emd2):
        with pytest.raises(ValueError, match="a must be non-negative, got -"):
            call(-a, b, M)
        with pytest.raises(ValueError, match="b must be non-negative, got -.* at index"):
            call(a, np.where(np.arange(len(b)) == 1, -b, b), M)
        with pytest.raises(ValueError, match="a must be finite, got nan at index 0"):
            call(a * np.nan, b, M)
