"""POT's `sinkhorn` and `sinkhorn2`: what POT's own tests say of them, and POT beside."""

import itertools
import math
import warnings

import numpy as np
import ot as theirs
import pytest
import torch
from compat.pot.problems import problem

import sinkhorn_ot as so
import sinkhorn_ot.compat.pot as ot


METHODS = (
    "sinkhorn",
    "sinkhorn_log",
    "greenkhorn",
    "sinkhorn_stabilized",
    "sinkhorn_epsilon_scaling",
)


@pytest.mark.parametrize("reg", [1.0, 0.1, 0.03])
def test_gives_the_plans_of_pot(reg):
    """Of problems where both converge; POT to a threshold far below its default."""
    worst = 0.0
    for seed in range(35):
        a, b, M = problem(4 + seed % 9, 3 + seed % 7, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            P = theirs.sinkhorn(a, b, M, reg, stopThr=1e-14, numItermax=50_000)
            cost = theirs.sinkhorn2(a, b, M, reg, stopThr=1e-14, numItermax=50_000)
        worst = max(worst, np.abs(ot.sinkhorn(a, b, M, reg) - P).max())
        worst = max(worst, abs(ot.sinkhorn2(a, b, M, reg) - cost))
    assert worst < 1e-8


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_have_one_answer(method):
    a, b, M = problem()
    P = ot.sinkhorn(a, b, M, 0.1)
    for name in (method, method.upper()):
        np.testing.assert_array_equal(ot.sinkhorn(a, b, M, 0.1, method=name), P)
    cost = ot.sinkhorn2(a, b, M, 0.1, method=method)
    assert cost == pytest.approx((P * M).sum(), rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_scalings_make_the_plan(method):
    a, b, M = problem()
    P, log = ot.sinkhorn(a, b, M, 0.1, method=method, log=True)
    K = np.exp(-M / 0.1)
    np.testing.assert_allclose(log["u"][:, None] * K * log["v"], P, rtol=1e-9)
    np.testing.assert_allclose(np.exp(log["log_u"]), log["u"])
    np.testing.assert_allclose(log["beta"], 0.1 * log["logv"])
    assert log["err"][-1] < 1e-9
    assert log["niter"] == log["n_iter"] > 0
    assert log["result"].converged


@pytest.mark.parametrize("method", METHODS)
def test_starts_where_it_ended(method):
    a, b, M = problem(30, 20)
    P, log = ot.sinkhorn(a, b, M, 0.02, method=method, log=True)
    again, warm = ot.sinkhorn(a, b, M, 0.02, method=method, log=True, warmstart=log["warmstart"])
    np.testing.assert_allclose(again, P, atol=1e-9)
    assert warm["niter"] <= 2 < log["niter"]


def test_a_start_of_pot_is_a_start_here():
    a, b, M = problem(30, 20)
    _, log = theirs.sinkhorn(a, b, M, 0.05, "sinkhorn_log", stopThr=1e-12, log=True)
    _, warm = ot.sinkhorn(a, b, M, 0.05, log=True, warmstart=(log["log_u"], log["log_v"]))
    assert warm["niter"] <= 2
    _, log = theirs.sinkhorn(a, b, M, 0.05, "sinkhorn_stabilized", stopThr=1e-12, log=True)
    start = log["alpha"], log["beta"]
    _, warm = ot.sinkhorn(a, b, M, 0.05, "sinkhorn_stabilized", log=True, warmstart=start)
    assert warm["niter"] <= 2


@pytest.mark.parametrize("method", ["sinkhorn", "sinkhorn_log"])
def test_many_targets_are_single_calls(method):
    a, b, M = problem(targets=3)
    costs, log = ot.sinkhorn(a, b, M, 0.1, method=method, log=True)
    assert costs.shape == (3,)
    assert log["u"].shape == (12, 3)
    assert log["v"].shape == (9, 3)
    single = [ot.sinkhorn2(a, b[:, k].copy(), M, 0.1) for k in range(3)]
    np.testing.assert_allclose(costs, single, rtol=1e-8)
    np.testing.assert_allclose(ot.sinkhorn2(a, b, M, 0.1), single, rtol=1e-8)
    np.testing.assert_allclose(
        costs, theirs.sinkhorn(a, b, M, 0.1, method, stopThr=1e-13), rtol=1e-8
    )
    # starts of both forms
    _, warm = ot.sinkhorn(a, b, M, 0.1, log=True, warmstart=log["warmstart"])
    pairs = [(log["log_u"][:, k], log["log_v"][:, k]) for k in range(3)]
    _, warmer = ot.sinkhorn(a, b, M, 0.1, "sinkhorn_log", log=True, warmstart=pairs)
    assert warm["niter"] <= 2
    assert warmer["niter"] <= 2


EMPTY = ([], (), np.zeros(0), None)


@pytest.mark.parametrize(("left", "right"), list(itertools.product(EMPTY, EMPTY)))
def test_no_weights_are_uniform(left, right):
    _, _, M = problem()
    P = ot.sinkhorn(np.full(12, 1 / 12), np.full(9, 1 / 9), M, 1.0)
    np.testing.assert_allclose(ot.sinkhorn(left, right, M, 1.0), P, atol=1e-12)
    got = ot.sinkhorn([], torch.zeros(0), torch.from_numpy(M), 1.0)
    np.testing.assert_allclose(got, P, atol=1e-12)


def test_lists_and_whole_numbers():
    P = ot.sinkhorn([0.5, 0.5], [0.5, 0.5], [[0, 1], [1, 0]], 1)
    np.testing.assert_allclose(P, theirs.sinkhorn([0.5, 0.5], [0.5, 0.5], [[0, 1], [1, 0]], 1))
    assert P.dtype == np.float64
    whole = np.array([[0, 1], [1, 0]]), np.array([1, 1])
    np.testing.assert_allclose(ot.sinkhorn(whole[1], whole[1], whole[0], 1), 2 * P)


@pytest.mark.parametrize(
    "kind", [np.float32, np.float64, torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_answers_in_the_kind_that_came(kind):
    tensors = isinstance(kind, torch.dtype)
    given = [torch.tensor(t, dtype=kind) if tensors else t.astype(kind) for t in problem()]
    a, b, M = given
    P, log = ot.sinkhorn(*given, 0.5, log=True)
    for x in (P, log["u"], log["alpha"], ot.sinkhorn2(*given, 0.5)):
        assert x.dtype == kind
        assert isinstance(x, torch.Tensor) == tensors
    want = ot.sinkhorn(*problem(), 0.5)
    digits = 1e-2 if tensors and kind.itemsize == 2 else 1e-6
    np.testing.assert_allclose(np.asarray(torch.as_tensor(P).double()), want, rtol=0, atol=digits)
    assert isinstance(ot.sinkhorn2(*problem(), 0.5), float)


def test_kinds_that_differ_meet_in_the_wider():
    a, b, M = problem()
    assert ot.sinkhorn(a, b, M.astype(np.float32), 0.5).dtype == np.float64
    half = torch.tensor(M).half()
    assert ot.sinkhorn(torch.tensor(a).float(), [], half, 0.5).dtype == torch.float32


def test_derivatives_are_those_of_the_solution():
    a, b, M = (torch.tensor(t, requires_grad=True) for t in problem(4, 3))

    def cost(a, b, M):
        return ot.sinkhorn2(a, b * (a.sum() / b.sum()), M, 0.2, stopThr=1e-13)

    def plan(a, b, M):
        return ot.sinkhorn(a, b * (a.sum() / b.sum()), M, 0.2, stopThr=1e-13).square().sum()

    def logs(a, b, M):
        _, log = ot.sinkhorn(a, b * (a.sum() / b.sum()), M, 0.2, stopThr=1e-13, log=True)
        return (log["log_u"][:, None] + log["log_v"]).sin().sum()

    for function in (cost, plan, logs):
        assert torch.autograd.gradcheck(function, (a, b, M), atol=1e-6)


def test_derivatives_are_those_of_pots_iterations():
    ours, others = ([torch.tensor(t, requires_grad=True) for t in problem(6, 5)] for _ in range(2))
    ot.sinkhorn2(*ours, 0.3).backward()
    theirs.sinkhorn2(*others, 0.3, stopThr=1e-14).backward()
    torch.testing.assert_close(ours[2].grad, others[2].grad, rtol=0, atol=1e-9)
    for one, other in zip(ours[:2], others[:2], strict=True):
        torch.testing.assert_close(one.grad - one.grad.mean(), other.grad - other.grad.mean())


def test_points_without_weight():
    a, b, M = problem()
    a[2], b[:4] = 0.0, 0.0
    a, b = a / a.sum(), b / b.sum()
    P, log = ot.sinkhorn(a, b, M, 0.05, log=True)
    assert (P[2] == 0).all()
    assert (log["v"][:4] == 0).all()
    np.testing.assert_allclose(P.sum(1), a, atol=1e-9)
    # and POT's way to them, without the points
    few = theirs.sinkhorn(np.delete(a, 2), b[4:], np.delete(M, 2, 0)[:, 4:], 0.05, stopThr=1e-13)
    np.testing.assert_allclose(np.delete(P, 2, 0)[:, 4:], few, atol=1e-9)
    _, warm = ot.sinkhorn(a, b, M, 0.05, log=True, warmstart=log["warmstart"])
    assert warm["niter"] <= 2


def test_costs_at_which_pots_kernel_underflows():
    a, b, M = problem(scale=1e5)
    with np.errstate(all="ignore"), pytest.warns(UserWarning, match="numerical errors"):
        theirs.sinkhorn(a, b, M, 1.0)
    P = ot.sinkhorn(a, b, M, 1.0)
    np.testing.assert_allclose(P.sum(0), b, atol=1e-8)


def test_warns_where_it_did_not_arrive():
    a, b, M = problem(30, 20)
    for call in (ot.sinkhorn, ot.sinkhorn2):
        with pytest.warns(so.ConvergenceWarning, match="Sinkhorn did not converge. Ran out") as got:
            call(a, b, M, 1e-3, numItermax=1, warn=True)
        assert got[0].filename == __file__
        call(a, b, M, 1e-3, numItermax=1, warn=False)
    # the default of each
    with pytest.warns(UserWarning, match="did not converge"):
        ot.sinkhorn(a, b, M, 1e-3, stopThr=0, numItermax=1)
    ot.sinkhorn2(a, b, M, 1e-3, numItermax=1)


def test_a_threshold_of_zero_asks_for_all_digits():
    a, b, M = problem()
    _, log = ot.sinkhorn(a, b, M, 0.1, stopThr=0, log=True)
    assert log["err"][-1] < 1e-13


def test_shows_progress(capsys):
    ot.sinkhorn(*problem(), 0.1, verbose=True)
    assert "sinkhorn" in capsys.readouterr().err


def test_what_was_given_is_not_changed():
    given = problem()
    before = [t.copy() for t in given]
    ot.sinkhorn(*given, 0.1)[0] = 7.0
    for t, kept in zip(given, before, strict=True):
        np.testing.assert_array_equal(t, kept)


BAD = {
    "method": ({"method": "sinkhron"}, "method must be one of 'sinkhorn', .* got 'sinkhron'"),
    "no method": ({"method": None}, "method must be one of"),
    "reg": ({"reg": 0.0}, "reg must be"),
    "costs": ({"M": np.full((12, 9), np.nan)}, "M must be a number"),
    "no costs": ({"M": []}, "M must hold costs"),
    "shape": ({"a": np.ones(5)}, r"a must have shape \(..., 12\)"),
    "negative": ({"b": np.array([2.0, -1.0, *np.zeros(7)])}, "b must be non-negative"),
    "masses": ({"b": np.ones(9)}, "a and b must have the same total mass"),
    "iterations": ({"numItermax": 0}, "numItermax must be a whole number of at least 1"),
    "threshold": ({"stopThr": "small"}, "stopThr must be one number"),
    "kinds": ({"a": torch.ones(12)}, "all be NumPy arrays or all be tensors"),
    "sparse": ({"M": torch.ones(12, 9).to_sparse(), "a": [], "b": []}, "must be dense"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    more, why = BAD[name]
    a, b, M = problem()
    with pytest.raises(ValueError, match=why):
        ot.sinkhorn(**({"a": a, "b": b, "M": M, "reg": 0.1} | more))


def test_what_nobody_has_is_no_option():
    with pytest.raises(TypeError, match="unexpected keyword argument 'numIterMax'"):
        ot.sinkhorn(*problem(), 0.1, numIterMax=5)
    ot.sinkhorn(*problem(), 0.1, tau=100, print_period=3)


def test_helpers_are_pots_and_the_rest_is_said_to_be_there():
    assert ot.dist is theirs.dist
    assert math.isclose(ot.unif(4)[0], 0.25)
    with pytest.raises(AttributeError, match="gromov_wasserstein': it is in POT itself"):
        _ = ot.gromov_wasserstein
    with pytest.raises(AttributeError, match="has no 'sinkhron'$"):
        _ = ot.sinkhron


@pytest.mark.parametrize("name", ["batch", "bregman", "lp", "partial", "sliced", "unbalanced"])
def test_modules_say_what_they_have_not(name):
    module = getattr(ot, name)
    there = {
        "batch": "loss_linear_batch",
        "bregman": "convolutional_barycenter2d",
        "lp": "free_support_barycenter",
        "partial": "partial_wasserstein_lagrange",
        "sliced": "max_sliced_wasserstein_distance",
        "unbalanced": "mm_unbalanced",
    }[name]
    with pytest.raises(AttributeError, match=f"{name} has no '{there}': it is in POT itself$"):
        getattr(module, there)
    for none in ("sinkhron", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"pot.{name} has no '{none}'$"):
            getattr(module, none)


def test_bad_starts():
    a, b, M = problem(6, 5)
    u, v = np.zeros(6), np.zeros(5)
    more = np.stack([b, b], 1)
    for start, said in (
        ((v, u), r"warmstart must have 6 numbers of sources, got shape \(5,\)"),
        ((u, u), r"warmstart must have 5 numbers of targets, got shape \(6,\)"),
        ((0.0, v), r"warmstart must have 6 numbers of sources, got shape \(\)"),
        ((u,), "warmstart must be a pair, of sources and of targets"),
        (u, "warmstart must be a pair"),
        (1.0, "warmstart must be a pair"),
    ):
        with pytest.raises(ValueError, match=said):
            ot.sinkhorn(a, b, M, 0.1, warmstart=start)
        with pytest.raises(ValueError, match=said):
            ot.sinkhorn_unbalanced(a, b, M, 0.1, 1.0, warmstart=start)
    with pytest.raises(ValueError, match="warmstart must have a pair for each of 2 targets, got 3"):
        ot.sinkhorn(a, more, M, 0.1, warmstart=[(u, v)] * 3)
    with pytest.raises(ValueError, match="potentials_init must have 5 numbers of targets"):
        ot.solve(M, a, b, 0.1, potentials_init=(u, u))
    # lists are a pair too
    ot.sinkhorn(a, b, M, 0.1, warmstart=(u.tolist(), v.tolist()))
