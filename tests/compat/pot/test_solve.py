"""POT's `solve`, `solve_sample` and `solve_batch`: what POT's tests say of them, and POT beside."""

import copy
import itertools
import pickle

import numpy as np
import ot as theirs
import pytest
import torch
from compat.pot.problems import clouds, problem

import sinkhorn_ot as so
import sinkhorn_ot.compat.pot as ot


def same(one, other, digits=1e-8):
    """Require what both know to be the same."""
    for name in ("value", "value_linear", "plan", "marginal_a", "marginal_b"):
        ours, others = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(ours, others, rtol=0, atol=digits, err_msg=name)
    assert one.value_quad is other.value_quad is None
    assert (one.potentials is None) == (other.potentials is None)


@pytest.mark.parametrize("reg", [None, 0, 0.1, 1.0])
@pytest.mark.parametrize("reg_type", ["KL", "entropy"])
def test_gives_the_numbers_of_pot(reg, reg_type):
    for seed in range(9):
        a, b, M = problem(3 + seed, 12 - seed % 5, seed)
        theirs_tol = {} if not reg else {"tol": 1e-14, "max_iter": 50_000}
        other = theirs.solve(M, a, b, reg, reg_type=reg_type, **theirs_tol)
        same(ot.solve(M, a, b, reg, reg_type=reg_type), other)
        same(
            ot.solve(M, reg=reg, reg_type=reg_type),
            theirs.solve(M, reg=reg, reg_type=reg_type, **theirs_tol),
        )


@pytest.mark.parametrize("penalty", [0.5, (0.3, 2.0)])
@pytest.mark.parametrize("reg", [0.1, 1.0])
def test_gives_the_numbers_of_pot_beside_a_penalty(reg, penalty):
    a, b, M = problem()
    other = theirs.solve(M, a, 1.5 * b, reg, unbalanced=penalty, tol=1e-15, max_iter=50_000)
    one = ot.solve(M, a, 1.5 * b, reg, unbalanced=penalty)
    same(one, other)
    for side in (0, 1):
        np.testing.assert_allclose(one.potentials[side], other.potentials[side], atol=1e-6)


def test_potentials_are_logarithms_of_scalings():
    a, b, M = problem()
    r = ot.solve(M, a, b, 0.1)
    u, v = r.potentials
    np.testing.assert_allclose(np.exp(u[:, None] + v - M / 0.1), r.plan, rtol=1e-9)
    assert r.potential_a is u
    assert r.potential_b is v
    exact = ot.solve(M, a, b)
    assert a @ exact.potential_a + b @ exact.potential_b == pytest.approx(exact.value)


def test_the_result_says_more():
    a, b, M = problem()
    r = ot.solve(M, a, b, 0.1)
    assert r.status == "Converged"
    assert ot.solve(M, a, b).status == "Converged"
    assert "value=" in repr(r) or "OTResult" in repr(r)
    assert r.transport.certificate().gap >= 0
    assert (r.sparse_plan.toarray() == r.plan).all()
    t = ot.solve(torch.tensor(M), torch.tensor(a), torch.tensor(b), 0.1)
    assert torch.equal(t.sparse_plan.to_dense(), t.plan)
    with pytest.warns(so.ConvergenceWarning, match="did not converge"):
        assert "Ran out" in ot.solve(M, a, b, 1e-3, max_iter=1).status


def test_starts_from_potentials():
    a, b, M = problem(30, 20)
    r = ot.solve(M, a, b, 0.02)
    warm = ot.solve(M, a, b, 0.02, potentials_init=r.potentials)
    assert int(warm.transport.n_iter) <= 2 < int(r.transport.n_iter)


@pytest.mark.parametrize("reg_type", ["KL", "entropy"])
def test_derivatives_are_those_of_the_solution(reg_type):
    a, b, M = (torch.tensor(t, requires_grad=True) for t in problem(4, 3))

    def value(a, b, M):
        return ot.solve(M, a, b * (a.sum() / b.sum()), 0.2, reg_type=reg_type, tol=1e-13).value

    def plan(a, b, M):
        r = ot.solve(M, a, b * (a.sum() / b.sum()), 0.2, reg_type=reg_type, tol=1e-13)
        return r.plan.square().sum() + r.value_linear

    for function in (value, plan):
        assert torch.autograd.gradcheck(function, (a, b, M), atol=1e-6)


@pytest.mark.parametrize("grad", ["autodiff", "last_step", "envelope", "detach"])
def test_what_has_derivatives(grad):
    M = torch.rand(5, 4, dtype=torch.float64, requires_grad=True)
    r = ot.solve(M, reg=0.3, grad=grad)
    assert r.value.requires_grad == (grad != "detach")
    assert r.plan.requires_grad == (grad in ("autodiff", "last_step"))
    assert r.potentials[0].requires_grad == r.plan.requires_grad
    if grad != "detach":
        other = M.detach().clone().requires_grad_()
        theirs.solve(other, reg=0.3, tol=1e-14, grad="envelope").value.backward()
        (by_M,) = torch.autograd.grad(r.value, M)
        torch.testing.assert_close(by_M, other.grad, rtol=0, atol=1e-8)


def test_the_derivative_by_weights_is_that_of_the_value_told():
    """POT's envelope is that of the entropy whatever the value is of."""
    a, b, M = (torch.tensor(t) for t in problem(5, 4))
    got = {}
    for kind in ("KL", "entropy"):
        for who, call in (("ours", ot), ("theirs", theirs)):
            w = a.clone().requires_grad_()
            call.solve(M, w, b, 0.3, reg_type=kind, tol=1e-14, grad="envelope").value.backward()
            got[kind, who] = w.grad - w.grad.mean()
    torch.testing.assert_close(got["entropy", "ours"], got["entropy", "theirs"])
    torch.testing.assert_close(got["KL", "theirs"], got["entropy", "theirs"])
    shift = 0.3 * a.log()
    torch.testing.assert_close(got["KL", "ours"], got["entropy", "ours"] - shift + shift.mean())


SAMPLES = list(
    itertools.product(["sqeuclidean", "euclidean", "cosine"], [None, 0.1], [False, True])
)


@pytest.mark.parametrize(("metric", "reg", "lazy"), SAMPLES)
@pytest.mark.parametrize("tensors", [False, True])
def test_samples_are_their_costs(metric, reg, lazy, tensors):
    x, y = clouds()
    M = theirs.dist(x, y, metric)
    given = [torch.tensor(t) for t in (x, y)] if tensors else [x, y]
    r = ot.solve_sample(*given, metric=metric, reg=reg, lazy=lazy)
    want = ot.solve(M, reg=reg)
    np.testing.assert_allclose(r.value, want.value, atol=1e-9)
    np.testing.assert_allclose(r.potentials[0], want.potentials[0], atol=1e-6)
    if lazy and reg:
        assert r.plan is None
        np.testing.assert_allclose(r.lazy_plan[:], want.plan, atol=1e-9)
        np.testing.assert_allclose(r.lazy_plan[2:5, 1:], want.plan[2:5, 1:], atol=1e-9)
        np.testing.assert_allclose(r.lazy_plan[3], want.plan[3], atol=1e-9)
        assert r.lazy_plan.shape == want.plan.shape
    else:
        np.testing.assert_allclose(r.plan, want.plan, atol=1e-9)


def test_samples_of_other_metrics():
    x, y = clouds()
    r = ot.solve_sample(x, y, metric="canberra", reg=0.1)
    want = theirs.solve_sample(x, y, metric="canberra", reg=0.1, tol=1e-13)
    np.testing.assert_allclose(r.plan, want.plan, atol=1e-8)
    with pytest.raises(ValueError, match="metric must be one of .* for tensors, got 'canberra'"):
        ot.solve_sample(torch.tensor(x), torch.tensor(y), metric="canberra", reg=0.1)
    with pytest.raises(ValueError, match="metric must be one of"):
        ot.solve_sample(x, y, metric="canberra", reg=0.1, lazy=True)


@pytest.mark.parametrize("lazy", [False, True])
def test_samples_have_derivatives_by_points(lazy):
    x, y = (torch.tensor(t, requires_grad=True) for t in clouds(4, 3))

    def value(x, y):
        return ot.solve_sample(x, y, reg=0.3, lazy=lazy, tol=1e-13).value

    assert torch.autograd.gradcheck(value, (x, y))


@pytest.mark.parametrize("reg", [None, 0.1])
def test_debiased_samples(reg):
    x, y = clouds()
    one = ot.solve_sample(x, y, reg=reg, debias=True)
    how = {} if reg is None else {"tol": 1e-14, "max_iter": 50_000}
    other = theirs.solve_sample(x, y, reg=reg, debias=True, **how)
    np.testing.assert_allclose(one.value, other.value, atol=1e-8)
    np.testing.assert_allclose(one.value_linear, other.value_linear, atol=1e-8)
    assert ot.solve_sample(x, x, reg=reg, debias=True).value == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(one.log["res_aa"].plan, other.log["res_aa"].plan, atol=1e-8)


@pytest.mark.parametrize("method", ["auto", "sinkhorn", "log_sinkhorn"])
@pytest.mark.parametrize("reg_type", ["entropy", "kl"])
def test_batches_are_single_calls(method, reg_type):
    M = np.random.default_rng(0).random((4, 6, 5))
    r = ot.batch.solve_batch(M, 0.1, method=method, reg_type=reg_type, tol=1e-11)
    other = theirs.batch.solve_batch(M, 0.1, reg_type=reg_type, tol=1e-12, max_iter=100_000)
    for name in ("value", "value_linear", "plan"):
        np.testing.assert_allclose(getattr(r, name), getattr(other, name), atol=1e-8)
    for k in range(4):
        one = ot.solve(M[k], reg=0.1, reg_type=reg_type)
        assert r.value[k] == pytest.approx(one.value, abs=1e-9)
    assert r.log["n_iter"] > 0


def test_batches_without_reg_are_exact():
    """POT's proximal steps end at a plan of the reg that each has."""
    M = np.random.default_rng(0).random((3, 5, 5))
    r = ot.batch.solve_batch(M)
    exact = [theirs.emd2([], [], C) for C in M]
    np.testing.assert_allclose(r.value, exact, rtol=1e-9)
    other = theirs.batch.solve_batch(M, inner_reg=0.2, tol=1e-12)
    blurred = theirs.batch.solve_batch(M, 0.2, tol=1e-12)
    np.testing.assert_allclose(other.plan, blurred.plan, atol=1e-8)


def test_batches_of_samples():
    x, y = (np.stack([clouds(seed=k)[side] for k in range(3)]) for side in (0, 1))
    r = ot.solve_sample_batch(x, y, 0.1, tol=1e-11)
    for k in range(3):
        one = ot.solve_sample(x[k], y[k], reg=0.1, reg_type="entropy")
        np.testing.assert_allclose(r.plan[k], one.plan, atol=1e-9)
        assert r.value[k] == pytest.approx(one.value, abs=1e-9)


@pytest.mark.parametrize("grad", ["envelope", "autodiff", "last_step", "detach"])
def test_batches_have_derivatives(grad):
    M = torch.rand(2, 4, 4, dtype=torch.float64, requires_grad=True)
    r = ot.solve_batch(M, 0.2, grad=grad, tol=1e-12)
    assert r.value.requires_grad == (grad != "detach")
    assert r.plan.requires_grad == (grad in ("autodiff", "last_step"))
    if grad != "detach":
        (by_M,) = torch.autograd.grad(r.value.sum(), M)
        torch.testing.assert_close(by_M, r.plan.detach(), rtol=0, atol=1e-9)


BAD = {
    "method": (ot.solve, {"method": "simplex"}, "method must be one of 'sinkhorn'"),
    "grad": (ot.solve, {"grad": "unroll"}, "grad must be one of 'autodiff'"),
    "quadratic": (ot.solve, {"reg_type": "L2"}, "reg_type must be .* got 'L2': .* POT itself"),
    "functions": (ot.solve, {"reg_type": (abs, abs)}, "reg_type must be .* POT itself"),
    "word": (ot.solve, {"reg_type": "KLL"}, "reg_type must be one of 'kl', 'entropy'"),
    "reference": (ot.solve, {"c": np.ones((12, 9))}, r"c must be None .* M - reg \* log\(c\)"),
    "no reg": (ot.solve, {"reg": None, "unbalanced": 1.0}, "unbalanced_type must be 'TV' without"),
    "costs": (ot.solve, {"M": np.full((12, 9), np.nan)}, "M must be a number"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    call, more, why = BAD[name]
    _, _, M = problem()
    with pytest.raises(ValueError, match=why):
        call(**({"M": M, "reg": 0.1} | more))


SAMPLED = {
    "gaussian": ({"method": "gaussian"}, "got 'gaussian': it is in POT itself"),
    "low rank": ({"method": "lowrank"}, "it is in POT itself"),
    "split": ({"debias": "split"}, "debias must be True or False, got 'split'"),
    "scaler": ({"scaler": "standard"}, "scaler must be None"),
    "lazy": ({"lazy": True, "unbalanced": 1.0}, "must be None with lazy=True"),
    "points": ({"X_a": np.ones((4, 3))}, "X_a and y must have points of one dimension"),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_bad_samples_are_named(name):
    more, why = SAMPLED[name]
    x, y = clouds()
    with pytest.raises(ValueError, match=why):
        ot.solve_sample(**({"X_a": x, "X_b": y, "reg": 0.1} | more))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"M": np.ones((3, 4))}, r"M must have shape \(B, n, m\), got \(3, 4\)"),
        ({"reg": None, "method": "sinkhorn"}, "reg must be above zero for method 'sinkhorn'"),
        ({"method": "emd"}, "method must be one of 'auto'"),
    ],
)
def test_bad_batches_are_named(more, why):
    with pytest.raises(ValueError, match=why):
        ot.solve_batch(**({"M": np.ones((2, 3, 4)), "reg": 0.1} | more))


RESULTS = {
    "entropic": lambda M, x, y: ot.solve(M, reg=0.1),
    "entropy": lambda M, x, y: ot.solve(M, reg=0.1, reg_type="entropy"),
    "exact": lambda M, x, y: ot.solve(M),
    "relaxed": lambda M, x, y: ot.solve(M, reg=0.1, unbalanced=0.5),
    "sample": lambda M, x, y: ot.solve_sample(x, y, reg=0.1),
    "lazy": lambda M, x, y: ot.solve_sample(x, y, reg=0.1, lazy=True),
    "debiased": lambda M, x, y: ot.solve_sample(x, y, reg=0.1, debias=True),
    "sliced": lambda M, x, y: ot.solve_sample(x, y, method="sliced"),
    "batch": lambda M, x, y: ot.solve_batch(M[None], 0.1),
}


@pytest.mark.parametrize("way", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("name", RESULTS)
def test_results_are_kept(name, tensors, way):
    """Whole: what was not asked for yet too, as numbers without derivatives."""
    given = problem()[2], *clouds()
    if tensors:
        given = [torch.from_numpy(t).requires_grad_() for t in given]
    r = RESULTS[name](*given)
    again = way(r)
    for part in ("value", "value_linear", "plan", "potentials", "marginals", "status"):
        ours, kept = getattr(r, part), getattr(again, part)
        if tensors and part in ("value", "value_linear"):
            assert kept.requires_grad is False
        if ours is None or isinstance(ours, str):
            assert kept == ours
        elif tensors:
            ours, kept = ([t] if isinstance(t, torch.Tensor) else list(t) for t in (ours, kept))
            torch.testing.assert_close(kept, [t.detach() for t in ours], atol=0, rtol=0)
        else:
            np.testing.assert_equal(kept, ours)
    if name == "lazy":
        rows = again.lazy_plan[:3]
        same = torch.equal if tensors else np.array_equal
        assert same(rows, r.lazy_plan[:3].detach() if tensors else r.lazy_plan[:3])
    if name == "debiased":
        kept = again.log["res_ab"]
        np.testing.assert_equal(np.asarray(kept.plan), np.asarray(again.plan))
    # the result itself has its derivatives still, and so does a shallow copy
    assert not tensors or copy.copy(r).value.requires_grad
    assert not tensors or r.value.requires_grad
