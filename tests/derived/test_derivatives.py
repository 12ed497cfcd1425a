"""Derivatives of Cuturi's distance, by the multiplier of its constraint."""

import pytest
import torch
from torch.autograd import gradcheck

import sinkhorn_ot as so


N, M = 6, 5
SEED = torch.Generator().manual_seed(0)
COST = torch.rand(N, M, dtype=torch.float64, generator=SEED)
A, B = (torch.rand(n, dtype=torch.float64, generator=SEED) + 0.1 for n in (N, M))
X, Y = (torch.randn(n, 2, dtype=torch.float64, generator=SEED) for n in (N, M))
ALPHA = torch.tensor(0.2, dtype=torch.float64)


def _distance(cost, a, b, alpha):
    b = b * (a.sum() / b.sum())
    return so.sinkhorn_distance(cost, a, b, alpha=alpha, tol=1e-13, on_fail="ignore").value


def _leaves(*tensors):
    return [t.clone().requires_grad_() for t in tensors]


@pytest.mark.parametrize("mass", [1.0, 3.0])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_distance_has_the_derivatives_of_its_lagrangian(mass, offset):
    assert gradcheck(_distance, _leaves(COST + offset, mass * A / A.sum(), B, ALPHA), atol=1e-4)


def test_points_without_weight_and_many_alphas():
    a = A.clone()
    a[2] = 0
    assert gradcheck(lambda C, b, alpha: _distance(C, a, b, alpha), _leaves(COST, B, ALPHA))
    # the last does not bind
    alphas = torch.tensor([0.05, 0.3, 5.0], dtype=torch.float64)
    assert gradcheck(lambda C, alpha: _distance(C, A, B, alpha), _leaves(COST, alphas))


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cosine"])
def test_points_have_derivatives(metric):
    def call(x, y, a, alpha):
        return _distance(so.PointCloud(x, y, metric), a, B, alpha)

    assert gradcheck(call, _leaves(X, Y, A, ALPHA))


def test_independence_moves_a_times_b():
    (C,) = _leaves(COST)
    a, b = A / A.sum(), B / B.sum()
    so.sinkhorn_distance(C, a, b, alpha=0.0).value.backward()
    torch.testing.assert_close(C.grad, a[:, None] * b)


@pytest.mark.parametrize("tell", ["plan", "value_linear", "reg", "lam", "kl"])
def test_other_numbers_have_none(tell):
    (C,) = _leaves(COST)
    r = so.sinkhorn_distance(C, alpha=0.2)
    with pytest.raises(RuntimeError, match=f"{tell} of sinkhorn_distance has no derivatives"):
        getattr(r, tell).sum().backward()
