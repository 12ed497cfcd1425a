"""POT's `sinkhorn_unbalanced`: what POT's own tests say of it, and POT beside."""

import math
import warnings

import numpy as np
import ot as theirs
import pytest
import torch
from compat.pot.problems import problem

import sinkhorn_ot.compat.pot as ot


INF = math.inf
TIGHT = {"stopThr": 1e-15, "numItermax": 100_000}


def quietly(call, *args, **options):
    with warnings.catch_warnings():
        # it says that it overwrites c
        warnings.simplefilter("ignore", UserWarning)
        return call(*args, **options)


@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
@pytest.mark.parametrize("reg_m", [0.5, (0.1, 2.0), (INF, 0.3), (0.3, INF)])
def test_gives_the_numbers_of_pot(reg_m, reg_type):
    for seed in range(13):
        a, b, M = problem(3 + seed, 12 - seed % 5, seed)
        b = b * (1.3 if INF not in np.atleast_1d(reg_m) else 1.0)
        how = {"reg_type": reg_type, "log": True}
        P, log = ot.unbalanced.sinkhorn_unbalanced(a, b, M, 0.1, reg_m, stopThr=1e-12, **how)
        Q, other = quietly(theirs.sinkhorn_unbalanced, a, b, M, 0.1, reg_m, **how, **TIGHT)
        np.testing.assert_allclose(P, Q, rtol=0, atol=1e-9)
        for key in ("cost", "total_cost"):
            assert log[key] == pytest.approx(other[key], abs=1e-8)
        if reg_m == 0.5:
            # else both sides may exchange a constant
            np.testing.assert_allclose(log["logu"], other["logu"], atol=1e-6)
            np.testing.assert_allclose(log["logv"], other["logv"], atol=1e-6)


@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
def test_both_costs(reg_type):
    a, b, M = problem()
    P, log = ot.sinkhorn_unbalanced(a, b, M, 0.1, 1.0, reg_type=reg_type, log=True)
    linear = ot.sinkhorn_unbalanced2(a, b, M, 0.1, 1.0, reg_type=reg_type)
    assert linear == pytest.approx((P * M).sum()) == pytest.approx(log["cost"])
    total, log = ot.sinkhorn_unbalanced2(
        a, b, M, 0.1, 1.0, reg_type=reg_type, returnCost="total", log=True
    )
    assert total == pytest.approx(float(log["total_cost"]))
    assert total != pytest.approx(linear)


@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
def test_a_reference_of_its_own(reg_type):
    a, b, M = problem()
    c = np.random.default_rng(0).random(M.shape) + 0.1
    P = ot.sinkhorn_unbalanced(a, b, M, 0.1, 0.5, reg_type=reg_type, c=c, stopThr=1e-12)
    Q = quietly(theirs.sinkhorn_unbalanced, a, b, M, 0.1, 0.5, reg_type=reg_type, c=c, **TIGHT)
    np.testing.assert_allclose(P, Q, atol=1e-9)


def test_a_reference_may_forbid():
    a, b, M = problem()
    c = a[:, None] * b
    c[0, 1:] = 0.0
    P = ot.sinkhorn_unbalanced(a, b, M, 0.1, 0.5, c=c)
    assert (P[0, 1:] == 0).all()
    assert P[0, 0] > 0


@pytest.mark.parametrize("given", [1.0, [1.0], (1.0, 1.0), np.ones(1), np.ones(2), np.float64(1)])
def test_penalties_in_all_forms(given):
    a, b, M = problem()
    P = ot.sinkhorn_unbalanced(a, 2 * b, M, 0.1, given)
    np.testing.assert_array_equal(P, ot.sinkhorn_unbalanced(a, 2 * b, M, 0.1, (1, 1)))
    t = [torch.tensor(x) for x in (a, 2 * b, M)]
    np.testing.assert_allclose(ot.sinkhorn_unbalanced(*t, 0.1, torch.as_tensor(given)), P)


def test_without_penalties_it_is_sinkhorn():
    a, b, M = problem()
    P = ot.sinkhorn_unbalanced(a, b, M, 0.1, INF, stopThr=1e-10)
    np.testing.assert_allclose(P, ot.sinkhorn(a, b, M, 0.1), atol=1e-9)


@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
def test_many_targets_are_single_calls(reg_type):
    a, b, M = problem(targets=3)
    how = {"reg_type": reg_type, "stopThr": 1e-12}
    costs, log = ot.sinkhorn_unbalanced(a, b, M, 0.1, 0.5, log=True, **how)
    assert log["logu"].shape == (12, 3)
    single = [ot.sinkhorn_unbalanced2(a, b[:, k].copy(), M, 0.1, 0.5, **how) for k in range(3)]
    np.testing.assert_allclose(costs, single, rtol=1e-9)
    np.testing.assert_allclose(ot.sinkhorn_unbalanced2(a, b, M, 0.1, 0.5, **how), single)
    # theirs are those against ones, whatever is asked for
    others = quietly(theirs.sinkhorn_unbalanced, a, b, M, 0.1, 0.5, **TIGHT)
    same = np.allclose(costs, others, rtol=1e-6)
    assert same == (reg_type == "entropy")


@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
def test_starts_where_it_ended(reg_type):
    a, b, M = problem(30, 20)
    how = {"reg_type": reg_type, "stopThr": 1e-10, "log": True}
    P, log = ot.sinkhorn_unbalanced(a, b, M, 0.02, 0.5, **how)
    start = log["logu"], log["logv"]
    Q, warm = ot.sinkhorn_unbalanced(a, b, M, 0.02, 0.5, warmstart=start, **how)
    np.testing.assert_allclose(Q, P, atol=1e-10)
    assert warm["niter"] <= 2 < log["niter"]


def test_derivatives_are_those_of_the_solution():
    a, b, M = (torch.tensor(t, requires_grad=True) for t in problem(4, 3))
    for reg_type in ("kl", "entropy"):
        for kind in ("linear", "total"):

            def cost(a, b, M, kind=kind, reg_type=reg_type):
                how = {"returnCost": kind, "reg_type": reg_type, "stopThr": 1e-13}
                return ot.sinkhorn_unbalanced2(a, b, M, 0.3, 0.5, **how)

            assert torch.autograd.gradcheck(cost, (a, b, M), atol=1e-6)


METHODS = (
    "sinkhorn",
    "sinkhorn_stabilized",
    "sinkhorn_translation_invariant",
    "sinkhorn_reg_scaling",
)


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_have_one_answer(method):
    a, b, M = problem()
    P = ot.sinkhorn_unbalanced(a, b, M, 0.1, 0.5, method.upper())
    np.testing.assert_array_equal(P, ot.sinkhorn_unbalanced(a, b, M, 0.1, 0.5))
    by_name = ot.unbalanced.sinkhorn_stabilized_unbalanced(a, b, M, 0.1, 0.5)
    np.testing.assert_array_equal(P, by_name)


def test_points_without_weight():
    a, b, M = problem()
    a[2], b[:4] = 0.0, 0.0
    for reg_type in ("kl", "entropy"):
        P, log = ot.sinkhorn_unbalanced(a, b, M, 0.1, 0.5, reg_type=reg_type, log=True)
        assert (P[2] == 0).all()
        assert np.isfinite(log["total_cost"])


BAD = {
    "method": ({"method": "sinkhron"}, "method must be one of"),
    "reg_type": ({"reg_type": "l2"}, "reg_type must be one of 'kl', 'entropy'"),
    "penalties": ({"reg_m": (1, 2, 3)}, "reg_m must be one penalty or two, got 3"),
    "penalty": ({"reg_m": -1.0}, "reg_m must be at least zero"),
    "masses": ({"reg_m": INF, "b": np.ones(9)}, "a and b must have the same total mass"),
    "cost": ({"returnCost": "all"}, "returnCost must be one of"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    more, why = BAD[name]
    a, b, M = problem()
    with pytest.raises(ValueError, match=why):
        ot.sinkhorn_unbalanced2(**({"a": a, "b": b, "M": M, "reg": 0.1, "reg_m": 1.0} | more))
