"""The Sinkhorn divergence, by closed forms and by its definition."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from derived.divergence import oracle

import sinkhorn_ot as so


D = torch.float64
METRICS = ("sqeuclidean", "euclidean", "manhattan", "dot", "cosine")


def cloud(n, d=2, seed=0, at=0.0):
    return torch.rand(n, d, dtype=D, generator=torch.Generator().manual_seed(seed)) + at


def weights(n, seed=0, zero=None, mass=1.0):
    w = torch.rand(n, dtype=D, generator=torch.Generator().manual_seed(seed)) + 0.1
    if zero is not None:
        w[zero] = 0
    return mass * w / w.sum()


X, Y = cloud(9, seed=1), cloud(7, seed=2, at=0.3)
A, B = weights(9, seed=3), weights(7, seed=4)


@pytest.mark.parametrize("reg", [1e-3, 0.1, 10.0])
def test_a_translation_costs_its_square_whatever_reg_is(reg):
    shift = torch.tensor([0.7, -2.0], dtype=D)
    r = so.sinkhorn_divergence(X, X + shift, A, A, reg)
    assert float(r.value) == pytest.approx(float(shift.square().sum()), rel=1e-10)
    assert bool(r.converged)


@pytest.mark.parametrize("mass", [1.0, 2.5])
def test_points_cost_what_they_are_apart(mass):
    x, y = torch.tensor([[0.0, 1.0]], dtype=D), torch.tensor([[3.0, 5.0]], dtype=D)
    one = torch.tensor([mass], dtype=D)
    r = so.sinkhorn_divergence(x, y, one, one, 0.3, metric="euclidean")
    assert float(r.value) == pytest.approx(5 * mass)
    # beside penalties as much of one is moved as is worth it
    rho, reg = 2.0, 0.3
    r = so.sinkhorn_divergence(x, y, reg=reg, metric="euclidean", unbalanced=rho)
    assert float(r.value) == pytest.approx((2 * rho + reg) * -math.expm1(-5 / (2 * rho + reg)))


@pytest.mark.parametrize("rho", [None, 0.05, 1.0, 5.0])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("reg", [0.05, 0.5])
def test_is_what_its_definition_says(metric, rho, reg):
    """Alone, where few points are moved onto themselves whole, and as a batch."""
    mass = 1.0 if rho is None else 1.7
    b = B * mass
    want = oracle.divergence(X, Y, A, b, reg, metric, math.inf if rho is None else rho)
    for x in (X, X[None]):
        r = so.sinkhorn_divergence(x, Y, A, b, reg, metric=metric, unbalanced=rho)
        assert bool(r.converged.all())
        assert float(r.value) == pytest.approx(float(want), rel=1e-9, abs=1e-13)


def test_a_large_reg_leaves_the_means():
    want = ((A @ X) - (B @ Y)).square().sum()
    value = so.sinkhorn_divergence(X, Y, A, B, 1e5).value
    assert float(value) == pytest.approx(float(want), rel=1e-4)


def test_with_free_marginals_it_is_a_kernel_distance():
    # where nothing has to arrive, no plan is cheaper than a b^T exp(-C / reg)
    reg = 0.3

    def mass(x, y, a, b):
        return a @ (-oracle.costs(x, y, "sqeuclidean") / reg).exp() @ b

    want = reg / 2 * (mass(X, X, A, A) + mass(Y, Y, B, B) - 2 * mass(X, Y, A, B))
    value = so.sinkhorn_divergence(X, Y, A, B, reg, unbalanced=0).value
    assert float(value) == pytest.approx(float(want), rel=1e-12)


@pytest.mark.parametrize("rho", [None, 0.2])
@pytest.mark.parametrize("metric", METRICS)
def test_equal_measures_are_not_apart(metric, rho):
    order = torch.randperm(9)
    r = so.sinkhorn_divergence(X, X[order], A, A[order], 0.05, metric=metric, unbalanced=rho)
    assert 0 <= float(r.value) < 1e-15
    # a point of twice the weight is two points
    twice, half = torch.cat([X, X]), torch.cat([A, A]) / 2
    r = so.sinkhorn_divergence(X, twice, A, half, 0.05, metric=metric, unbalanced=rho)
    assert 0 <= float(r.value) < 1e-14


def test_is_never_below_zero():
    below = 0
    for seed in range(10):
        x = cloud(15, seed=seed, at=3.0).requires_grad_()
        r = so.sinkhorn_divergence(x, x[torch.randperm(15)].detach(), reg=1.0)
        value = float(r.detach().value)
        assert value >= 0
        # what is told as zero still has derivatives
        (grad,) = torch.autograd.grad(r.value, x)
        assert float(grad.abs().max()) < 1e-8
        raw = float(replace(r.detach(), bounded=False).value)
        below += raw < 0
        assert raw == pytest.approx(value, abs=1e-14)
    assert below


def test_half_an_answer_is_not_hidden():
    """A function's kernel may be no positive definite one, and then the divergence has no sign."""
    C = torch.tensor([[5.0, 0.0], [0.0, 5.0]], dtype=D)
    at = torch.arange(2.0, dtype=D)[:, None]
    left, right = torch.tensor([0.9, 0.1], dtype=D), torch.tensor([0.1, 0.9], dtype=D)
    r = so.sinkhorn_divergence(
        at, at, left, right, 0.1, metric=lambda x, y: C[x.long()[:, 0]][:, y.long()[:, 0]]
    )
    assert float(r.value) < -1


def test_a_shared_cloud_is_moved_onto_itself_once():
    y = torch.stack([cloud(7, seed=k) for k in range(4)])
    r = so.sinkhorn_divergence(X, y, A, B, 0.05)
    assert r.value.shape == r.converged.shape == (4,)
    assert r.within[0].problem.shape == (1, 9, 9)
    assert r.within[1].problem.shape == (4, 7, 7)
    assert r.f.shape == (4, 9)
    assert r.g.shape == (4, 7)
    for k in range(4):
        one = so.sinkhorn_divergence(X, y[k], A, B, 0.05)
        torch.testing.assert_close(r.value[k], one.value)
        torch.testing.assert_close(r.f[k], one.f, atol=1e-9, rtol=0)


def test_dimensions_broadcast_and_many_regs():
    x = torch.stack([cloud(9, seed=k) for k in range(3)])[:, None]
    y = torch.stack([cloud(7, seed=k) for k in range(2)])
    reg = torch.tensor([[0.05], [0.1], [0.2]], dtype=D).expand(3, 2)
    r = so.sinkhorn_divergence(x, y, None, B, reg)
    assert r.value.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            one = so.sinkhorn_divergence(x[i, 0], y[j], None, B, float(reg[i, 0]))
            torch.testing.assert_close(r.value[i, j], one.value)
    # each reg of a shared cloud has its own problem
    r = so.sinkhorn_divergence(X, y, A, B, [0.05, 0.3], unbalanced=0.5)
    for j, reg in enumerate((0.05, 0.3)):
        one = so.sinkhorn_divergence(X, y[j], A, B, reg, unbalanced=0.5)
        torch.testing.assert_close(r.value[j], one.value)


@pytest.mark.parametrize("rho", [None, 0.3])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_points_without_weight_are_not_there(rho, batch):
    a, b = weights(9, seed=3, zero=4), weights(7, seed=4, zero=0)
    few = so.sinkhorn_divergence(X[a > 0], Y[b > 0], a[a > 0], b[b > 0], 0.05, unbalanced=rho)
    far = X.clone()
    far[4] = 1e3
    r = so.sinkhorn_divergence(far.expand(*batch, 9, 2), Y, a, b, 0.05, unbalanced=rho)
    # a batch takes symmetric steps, whatever its size
    assert (r.within[0].method == "symmetric") == bool(batch)
    torch.testing.assert_close(r.value, few.value.expand(batch), rtol=1e-9, atol=0)
    assert bool(r.converged.all())
    assert bool(r.f.isfinite().all())


def test_single_precision_keeps_the_digits_of_a_difference():
    x = cloud(300, 3).float()
    y = x + 1e-3
    r = so.sinkhorn_divergence(x, y, reg=0.05)
    want = so.sinkhorn_divergence(x.double(), y.double(), reg=0.05).value
    assert r.value.dtype == r.f.dtype == torch.float32
    # transport itself is .3, and float32 would leave three digits of this
    assert float(r.value) == pytest.approx(float(want), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_it_is(dtype):
    x, y = X.to(dtype), Y.to(dtype)
    r = so.sinkhorn_divergence(x, y, reg=0.05)
    want = so.sinkhorn_divergence(x.double(), y.double(), reg=0.05).value
    assert r.value.dtype == torch.float32
    assert float(r.value) == pytest.approx(float(want), rel=1e-6)


@pytest.mark.parametrize(
    ("metric", "rho"), [("sqeuclidean", None), ("dot", None), ("euclidean", 0.01), ("cosine", 1.0)]
)
@pytest.mark.parametrize("reg", [1e-4, 1e-2, 1.0])
def test_a_measure_and_itself_take_few_sweeps(metric, rho, reg):
    x, most = cloud(250, 3, at=3.0), 10 if rho is None else 16
    r = so.sinkhorn_divergence(x, x, reg=reg, metric=metric, unbalanced=rho, on_fail="ignore")
    assert r.within[0].method == "symmetric"
    assert r.within[0].status is so.Status.CONVERGED
    assert int(r.within[0].n_iter) <= most


def test_potentials_are_what_weights_are_worth():
    r = so.sinkhorn_divergence(X, Y, A, B, 0.05, tol=1e-12)
    half = float(r.value) / 2
    assert float(A @ r.f) == pytest.approx(half)
    assert float(B @ r.g) == pytest.approx(half)
    turned = so.sinkhorn_divergence(Y, X, B, A, 0.05, tol=1e-12)
    torch.testing.assert_close(turned.f, r.g, atol=1e-10, rtol=0)
    step = torch.randn(9, dtype=D)
    step = 1e-5 * (step - step.mean())
    ends = [float(so.sinkhorn_divergence(X, Y, A + s * step, B, 0.05).value) for s in (-1, 1)]
    assert (ends[1] - ends[0]) / 2 == pytest.approx(float(step @ r.f), rel=1e-5)


@pytest.mark.parametrize("rho", [None, 0.4])
def test_a_function_is_a_metric(rho):
    def squares(x, y):
        return (x[:, None] - y).square().sum(-1)

    named = so.sinkhorn_divergence(X, Y, A, B, 0.05, unbalanced=rho)
    ours = so.sinkhorn_divergence(X, Y, A, B, 0.05, metric=squares, unbalanced=rho)
    torch.testing.assert_close(ours.value, named.value)
    torch.testing.assert_close(ours.f, named.f, atol=1e-9, rtol=0)
    # stored costs by the numbers of their rows and columns
    whole = torch.cat([X, Y])
    C = squares(whole, whole)
    stored = so.sinkhorn_divergence(
        torch.arange(9), torch.arange(9, 16), A, B, 0.05, metric=lambda i, j: C[i][:, j]
    )
    if rho is None:
        torch.testing.assert_close(stored.value, named.value)


def test_arrays_lists_and_whole_numbers_are_taken():
    want = so.sinkhorn_divergence(X, Y, A, B, 0.05).value
    found = so.sinkhorn_divergence(X.numpy(), Y.numpy(), A.numpy(), B.tolist(), np.float64(0.05))
    assert float(found.value) == pytest.approx(float(want))
    assert float(so.sinkhorn_divergence([[0, 0]], [[3, 4]], reg=1).value) == pytest.approx(25)


def test_a_start_saves_sweeps():
    x, y = cloud(400, 2), cloud(400, 2, seed=1)
    first = so.sinkhorn_divergence(x, y, reg=5e-3)
    again = so.sinkhorn_divergence(x + 1e-4, y, reg=5e-3, init=first)
    cold = so.sinkhorn_divergence(x + 1e-4, y, reg=5e-3)
    torch.testing.assert_close(again.value, cold.value)
    for warm, other in zip(
        (again.between, *again.within), (cold.between, *cold.within), strict=True
    ):
        assert int(warm.n_iter) <= int(other.n_iter)


def test_who_does_not_arrive_is_told():
    x, y = cloud(200, 2), cloud(200, 2, seed=1)
    with pytest.warns(so.ConvergenceWarning, match=r"OT\(a, b\): Ran out of iterations"):
        r = so.sinkhorn_divergence(x, y, reg=1e-3, max_iter=3)
    assert r.status is so.Status.MAX_ITER
    assert not bool(r.converged)
    with pytest.raises(so.ConvergenceError) as told:
        r.check()
    assert told.value.result is r
    with pytest.raises(so.ConvergenceError):
        so.sinkhorn_divergence(x, y, reg=1e-3, max_iter=3, on_fail="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        so.sinkhorn_divergence(x, y, reg=1e-3, max_iter=3, on_fail="ignore")
        good = so.sinkhorn_divergence(x, y, reg=0.1)
    assert good.check() is good
    assert "match" in good.message


def test_shows_itself_in_a_line():
    r = so.sinkhorn_divergence(X, Y, reg=0.1)
    assert repr(r).startswith("Divergence(")
    assert "CONVERGED" in repr(r)
    assert "\n" not in repr(r)


BAD = {
    "points at infinity": ({"x": X * math.inf}, "x must be finite"),
    "no number": ({"y": torch.full_like(Y, math.nan)}, "y must be finite"),
    "dimensions": ({"y": cloud(7, 3)}, "points of one dimension, got 2 and 3"),
    "no points": ({"x": X[:0]}, "x must not be empty"),
    "one point": ({"x": X[0]}, r"x must have shape \(..., n, d\)"),
    "below zero": ({"a": -A}, "a must be non-negative"),
    "other masses": ({"b": 2 * B}, "a and b must have the same total mass"),
    "too few weights": ({"a": A[:3]}, r"a must have shape \(..., 9\)"),
    "no reg": ({"reg": None}, "reg must be given"),
    "reg of zero": ({"reg": 0.0}, "reg must be a finite number above zero"),
    "metric": ({"metric": "hamming"}, "metric must be one of 'sqeuclidean'"),
    "no metric": ({"metric": 2}, "metric must be one of"),
    "two penalties": ({"unbalanced": (1.0, 2.0)}, "unbalanced must be one penalty for both"),
    "penalty": ({"unbalanced": -1.0}, "unbalanced must be at least zero"),
    "start": ({"init": (None, B)}, "init must be an earlier Divergence, got tuple"),
    "on_fail": ({"on_fail": "shout"}, "on_fail must be one of"),
    "tol": ({"tol": 0.0}, "tol must be a finite number above zero"),
    "costs": ({"metric": lambda x, y: X}, r"must have shape \(..., 2\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    given, why = BAD[name]
    call = {"x": X, "y": Y, "a": A, "b": B, "reg": 0.1} | given
    with pytest.raises(ValueError, match=why):
        so.sinkhorn_divergence(**call)


def test_arguments_stay_as_they_are():
    before = [t.clone() for t in (X, Y, A, B)]
    so.sinkhorn_divergence(X, Y, A, B, 0.05)
    assert all(torch.equal(s, t) for s, t in zip(before, (X, Y, A, B), strict=True))
