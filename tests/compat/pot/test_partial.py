"""POT's `ot.partial`: what POT's own tests say of it, POT beside, and penalties of `solve`."""

import warnings

import numpy as np
import ot as theirs
import pytest
import torch
from compat.pot.problems import problem

import sinkhorn_ot.compat.pot as ot


def masses(seed=0, n=12, m=9):
    a, b, M = problem(n, m, seed)
    return a, 0.8 * b, M


@pytest.mark.parametrize("share", [0.3, 0.75, 1.0])
def test_gives_the_plans_of_pot(share):
    for seed in range(34):
        a, b, M = masses(seed, 3 + seed % 11, 4 + seed % 7)
        m = 0.8 * share
        P, log = ot.partial.partial_wasserstein(a, b, M, m, log=True)
        # its b sums up to rounding
        Q, other = theirs.partial.partial_wasserstein(a, b, M, min(m, b.sum()), log=True)
        np.testing.assert_allclose(P, Q, atol=1e-10)
        assert log["partial_w_dist"] == pytest.approx(other["partial_w_dist"], abs=1e-10)
        cost = ot.partial.partial_wasserstein2(a, b, M, m)
        assert cost == pytest.approx((P * M).sum(), abs=1e-12)


@pytest.mark.parametrize("size", [1e-12, 1e-20])
def test_small_costs_have_the_same_plans(size):
    for seed in range(10):
        a, b, M = masses(seed, 4, 5)
        best = ot.partial.partial_wasserstein2(a, b, M, 0.5, log=True)[0]
        assert ot.partial.partial_wasserstein2(a, b, M * size, 0.5) / size == pytest.approx(best)
        P = ot.partial.partial_wasserstein(a, b, M * size, 0.5)
        assert (P * M).sum() == pytest.approx(best)


def test_the_mass_that_is_moved():
    a, b, M = masses()
    P, log = ot.partial.partial_wasserstein(a, b, M, 0.5, log=True)
    assert P.sum() == pytest.approx(0.5)
    assert (P.sum(1) <= a + 1e-12).all()
    assert (P.sum(0) <= b + 1e-12).all()
    assert log["u"].shape == (12,)
    assert log["v"].shape == (9,)
    cost, log = ot.partial.partial_wasserstein2(a, b, M, 0.5, log=True)
    np.testing.assert_allclose(log["T"], P)
    whole = ot.partial.partial_wasserstein(a, b, M)
    assert whole.sum() == pytest.approx(0.8)
    assert ot.partial.partial_wasserstein([], [], M, 1.0).sum() == pytest.approx(1.0)
    assert ot.partial.partial_wasserstein2(a, b, M, 0.0) == pytest.approx(0, abs=1e-15)


def test_partial_costs_have_derivatives():
    a, b, M = (torch.tensor(t) for t in masses())
    M.requires_grad_()
    cost, log = ot.partial.partial_wasserstein2(a, b, M, 0.5, log=True)
    (by_M,) = torch.autograd.grad(cost, M)
    torch.testing.assert_close(by_M, log["T"].detach())


@pytest.mark.parametrize("reg", [0.1, 1.0])
@pytest.mark.parametrize("method", ["sinkhorn", "sinkhorn_log"])
def test_gives_the_entropic_plans_of_pot(reg, method):
    for seed in range(8):
        a, b, M = masses(seed)
        m = (0.3, 0.6)[seed % 2]
        P, log = ot.partial.entropic_partial_wasserstein(a, b, M, reg, m, method, log=True)
        Q = theirs.partial.entropic_partial_wasserstein(
            a, b, M, reg, m, method, stopThr=1e-13, numItermax=20_000
        )
        np.testing.assert_allclose(P, Q, atol=1e-8)
        assert log["partial_w_dist"] == pytest.approx((P * M).sum())


@pytest.mark.parametrize("call", [ot.partial.partial_wasserstein, ot.partial.partial_wasserstein2])
@pytest.mark.parametrize("m", [-1.0, 0.81, np.nan])
def test_masses_that_are_not_there(call, m):
    a, b, M = masses()
    with pytest.raises(ValueError, match="m must be from 0 to the lesser mass, 0.8"):
        call(a, b, M, m)
    with pytest.raises(ValueError, match="m must be from 0 to the lesser mass, 0.8"):
        ot.partial.entropic_partial_wasserstein(a, b, M, 0.1, m)


@pytest.mark.parametrize("penalty", ["L2", "TV"])
@pytest.mark.parametrize("reg_type", ["KL", "entropy"])
def test_gives_the_values_of_pot_beside_other_penalties(penalty, reg_type):
    """By L-BFGS, which ends above ours, and for TV may end far above: it has kinks."""
    a, b, M = masses()
    how = {"reg_type": reg_type, "unbalanced_type": penalty}
    one = ot.solve(M, a, b, 0.1, unbalanced=0.5, tol=1e-11, **how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = theirs.solve(M, a, b, 0.1, unbalanced=0.5, tol=1e-16, max_iter=8_000, **how)
    assert one.value <= other.value + 1e-9
    assert abs(float(one.transport.gap)) < 1e-8
    f = {"L2": lambda x: x @ x / 2, "TV": lambda x: np.abs(x).sum()}[penalty]
    P, entropy = one.plan, (one.plan * np.log(one.plan)).sum()
    if reg_type == "KL":
        entropy -= (P * np.log(a[:, None] * b)).sum() - a.sum() * b.sum()
    off = f(P.sum(1) - a) + f(P.sum(0) - b)
    assert one.value == pytest.approx((P * M).sum() + 0.1 * (entropy - P.sum()) + 0.5 * off)
    assert one.value_linear == pytest.approx((one.plan * M).sum())
    if penalty == "L2":
        assert one.value == pytest.approx(other.value, abs=1e-5)
        np.testing.assert_allclose(one.plan, other.plan, atol=1e-4)


def test_a_reference_beside_other_penalties():
    a, b, M = masses()
    c = np.random.default_rng(0).random(M.shape) / 50
    how = {"unbalanced": 0.5, "unbalanced_type": "L2", "c": c}
    one = ot.solve(M, a, b, 0.1, tol=1e-11, **how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = theirs.solve(M, a, b, 0.1, tol=1e-16, max_iter=8_000, **how)
    assert one.value == pytest.approx(other.value, abs=1e-5)
    np.testing.assert_allclose(one.plan, other.plan, atol=1e-4)
    with pytest.raises(ValueError, match="unbalanced_type must be one of 'kl', 'l2', 'tv'"):
        ot.solve(M, a, b, 0.1, unbalanced=0.5, unbalanced_type="L1")


@pytest.mark.parametrize("price", [0.05, (0.1, 0.4), (0.1, np.inf)])
def test_marginals_at_a_price_without_reg(price):
    """A linear program, of which L-BFGS ends above the optimum."""
    a, b, M = problem()
    r = ot.solve(M, a, b, unbalanced=price, unbalanced_type="TV")
    left, right = np.atleast_1d(price)[[0, -1]]
    off = np.abs(r.plan.sum(1) - a).sum(), np.abs(r.plan.sum(0) - b).sum()
    paid = sum(rho * x for rho, x in zip((left, right), off, strict=True) if rho < np.inf)
    assert r.value == pytest.approx((r.plan * M).sum() + paid)
    assert float(r.transport.gap) == pytest.approx(0, abs=1e-12)
    if np.inf not in (left, right):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = theirs.solve(M, a, b, unbalanced=price, unbalanced_type="TV")
        assert r.value <= other.value + 1e-9
    whole = ot.solve(M, a, b, unbalanced=np.inf, unbalanced_type="TV")
    assert whole.value == pytest.approx(ot.emd2(a, b, M))


@pytest.mark.parametrize("tensors", [False, True])
def test_nothing_may_be_moved(tensors):
    """POT's entropic call divides by zero there."""
    given = [torch.from_numpy(t) for t in problem()] if tensors else problem()
    P, log = ot.partial.entropic_partial_wasserstein(*given, 0.1, m=0, log=True)
    assert type(P) is type(given[2])
    assert P.shape == given[2].shape
    assert float(abs(P).max()) == 0
    assert float(log["partial_w_dist"]) == 0
    assert float(abs(ot.partial.partial_wasserstein(*given, m=0)).max()) == 0
    with pytest.raises(ValueError, match="m must be from 0 to the lesser mass"):
        ot.partial.entropic_partial_wasserstein(*given, 0.1, m=-1)
    with pytest.raises(ValueError, match="reg must be a finite number above zero"):
        ot.partial.entropic_partial_wasserstein(*given, -0.1, m=0)
