"""Derivatives of the divergence, beside central differences, and what they cost."""

import pytest
import torch
from derived.divergence.test_debiased import METRICS, A, B, D, X, Y, cloud
from torch.autograd import gradcheck, gradgradcheck

import sinkhorn_ot as so
from sinkhorn_ot.sweeps.portable.on_the_fly import OnTheFly


REG, RHO = torch.tensor(0.3, dtype=D), torch.tensor(0.6, dtype=D)


def leaves(*tensors):
    return [t.clone().requires_grad_() for t in tensors]


def exact(x, y, a, b, reg, tell=lambda r: r.value, **options):
    b = b * (a.sum() / b.sum())
    r = so.sinkhorn_divergence(x, y, a, b, reg, tol=1e-13, on_fail="ignore", **options)
    return tell(r)


@pytest.mark.slow(4)
@pytest.mark.parametrize("metric", METRICS)
def test_value_has_first_and_second_derivatives(metric):
    def call(x, y, a, b, reg):
        return exact(x, y, a, b, reg, metric=metric)

    args = leaves(X[:5], Y[:4], A[:5], B[:4], REG)
    assert gradcheck(call, args)
    assert gradgradcheck(call, args, atol=1e-5)


@pytest.mark.slow(4)
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_beside_penalties_too(metric):
    def call(x, y, a, b, reg, rho):
        r = so.sinkhorn_divergence(
            x, y, a, b, reg, metric=metric, unbalanced=rho, tol=1e-13, on_fail="ignore"
        )
        return r.value

    args = leaves(X[:5], Y[:4], A[:5], 2 * B[:4], REG, RHO)
    assert gradcheck(call, args)
    assert gradgradcheck(call, args, atol=1e-5)


def test_batches_and_shared_clouds_have_them():
    y = torch.stack([cloud(4, seed=k) for k in range(3)])
    regs = torch.tensor([0.1, 0.2, 0.4], dtype=D)
    assert gradcheck(lambda x, y, a, reg: exact(x, y, a, B[:4], reg), leaves(X[:5], y, A[:5], regs))


@pytest.mark.parametrize("kept", ["x", "y"])
def test_one_side_alone(kept):
    if kept == "x":
        assert gradcheck(lambda y: exact(X, y, A, B, 0.1), leaves(Y))
        assert gradgradcheck(lambda y: exact(X, y, A, B, 0.1), leaves(Y), atol=1e-5)
    else:
        assert gradcheck(lambda x: exact(x, Y, A, B, 0.1), leaves(X))
        assert gradgradcheck(lambda x: exact(x, Y, A, B, 0.1), leaves(X), atol=1e-5)


def test_one_tensor_on_both_sides():
    def call(x):
        return exact(x, x, A, A.flip(0), 0.1)

    assert gradcheck(call, leaves(X))


def test_one_cloud_of_other_weights_is_not_moved_symmetrically():
    def call(x):
        return so.solve(so.PointCloud(x, x), A, A.flip(0), 0.1, tol=1e-12, on_fail="ignore").value

    assert gradcheck(call, leaves(X))


def test_points_without_weight_stay():
    a = A.clone()
    a[2] = 0
    a = a / a.sum()
    x, y = leaves(X, Y)
    so.sinkhorn_divergence(x, y, a, B, 0.1).value.backward()
    assert torch.equal(x.grad[2], torch.zeros(2, dtype=D))
    assert bool(x.grad.isfinite().all())
    (w,) = leaves(a)
    so.sinkhorn_divergence(X, Y, w, B, 0.1).value.backward()
    assert bool(w.grad.isfinite().all())


@pytest.mark.parametrize("side", ["f", "g"])
def test_potentials_have_derivatives(side):
    def call(x, y, a, b, reg):
        return exact(x, y, a, b, reg, lambda r: getattr(r, side))

    assert gradcheck(call, leaves(X[:5], Y[:4], A[:5], B[:4], REG))


def test_equal_measures_do_not_move():
    (x,) = leaves(X)
    so.sinkhorn_divergence(x, X.flip(0), A, A.flip(0), 0.05).value.backward()
    assert float(x.grad.abs().max()) < 1e-8


@pytest.mark.parametrize(("both", "most"), [(False, 2), (True, 4)])
def test_costs_few_passes_and_never_a_plan(both, most, monkeypatch):
    x, y = leaves(cloud(60), cloud(50, seed=1))
    y.requires_grad_(both)
    value = so.sinkhorn_divergence(x, y, reg=0.1).value
    passes = []
    before = OnTheFly.apply
    monkeypatch.setattr(OnTheFly, "apply", lambda *a, **k: passes.append(1) or before(*a, **k))
    value.backward()
    assert len(passes) == most


def test_a_flow_does_not_collapse():
    y = cloud(40, seed=1)

    def spread(biased):
        x = cloud(40, seed=2)
        for _ in range(30):
            (x,) = leaves(x)
            if biased:
                value = so.solve(so.PointCloud(x, y), reg=0.2).value
            else:
                value = so.sinkhorn_divergence(x, y, reg=0.2).value
            value.backward()
            x = (x - 10 * x.grad).detach()
        return float(x.var(0).sum() / y.var(0).sum())

    assert spread(biased=True) < 0.7
    assert spread(biased=False) > 0.95


def test_constants_where_they_are_asked_for():
    (x,) = leaves(X)
    r = so.sinkhorn_divergence(x, Y, A, B, 0.1)
    assert r.value.requires_grad
    assert not r.detach().value.requires_grad
    with torch.no_grad():
        assert not r.value.requires_grad
        assert not so.sinkhorn_divergence(x, Y, A, B, 0.1).value.requires_grad
    torch.testing.assert_close(r.detach().value, r.value.detach())


def test_half_precision_gives_its_gradients():
    x, y = leaves(X.bfloat16(), Y.bfloat16())
    so.sinkhorn_divergence(x, y, reg=0.1).value.backward()
    want = leaves(x.detach().double(), y.detach().double())
    so.sinkhorn_divergence(*want, reg=0.1).value.backward()
    assert x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(x.grad, want[0].grad.bfloat16())
