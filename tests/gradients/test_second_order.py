"""Second derivatives of values, and what happens where there are none."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import sinkhorn_ot as so

from .test_first_order import A0, COST, REG, RHO, A, B, M, N, W, X, Y, _exact, _relaxed


def _leaves(*tensors):
    return [t.clone().requires_grad_() for t in tensors]


METRICS = ["sqeuclidean", "euclidean", "manhattan", "chebyshev", "dot", "cosine"]


@pytest.mark.parametrize("tell", ["value", "dual_value"])
def test_values_of_costs_have_second_derivatives(tell):
    exact = _leaves(COST, A, B, REG)
    assert gradcheck(lambda *t: getattr(_exact(*t), tell), exact)
    assert gradgradcheck(lambda *t: getattr(_exact(*t), tell), exact, atol=1e-6)
    relaxed = _leaves(COST, A, 1.3 * B, REG, RHO)
    assert gradgradcheck(lambda *t: getattr(_relaxed(*t), tell), relaxed, atol=1e-6)


@pytest.mark.parametrize("free", [(0.0, 0.5), (0.5, 0.0), (0.0, 0.0), (0.0, None), (None, 0.0)])
def test_values_beside_free_marginals_have_second_derivatives(free):
    def call(*t):
        return so.solve(*t, unbalanced=free, tol=1e-13, on_fail="ignore").value

    fixed = B if free == (0.0, None) else A
    leaves = _leaves(COST, A, B, REG)
    if None in free:
        # the exact side's weights are no function of their own

        def alone(C, w, reg):
            return call(C, w, fixed, reg) if free[0] == 0 else call(C, fixed, w, reg)

        w = A if free[0] == 0 else B
        assert gradgradcheck(alone, _leaves(COST, w, REG), atol=1e-6)
    else:
        assert gradgradcheck(call, leaves, atol=1e-6)


def test_a_weight_of_zero_on_a_free_side_has_no_second_derivative():
    C, a = _leaves(COST, A0)
    value = so.solve(C, a, B, 0.3, unbalanced=(0.0, None)).value
    (first,) = torch.autograd.grad(value, a, create_graph=True)
    with pytest.raises(RuntimeError, match="value beside a weight of zero on a free side has fir"):
        first.sum().backward()


@pytest.mark.parametrize("metric", METRICS)
def test_values_of_points_have_second_derivatives(metric):
    def exact(x, y, a, b, reg):
        return _exact(so.PointCloud(x, y, metric), a, b, reg).value

    def relaxed(x, y):
        return _relaxed(so.PointCloud(x, y, metric), A, 1.1 * B, REG, RHO).value

    assert gradgradcheck(exact, _leaves(X, Y, A, B, 2 * REG), atol=1e-6)
    assert gradgradcheck(relaxed, _leaves(X, Y), atol=1e-6)


def test_values_of_batches_that_share_a_cost_have_second_derivatives():
    a = torch.rand(3, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1

    def stored(C, a):
        return _exact(C, a / a.sum(-1, keepdim=True), torch.ones(3, M).double() / M, REG).value

    def points(x, a):
        return stored(so.PointCloud(x, Y), a)

    assert gradgradcheck(stored, _leaves(COST, a), atol=1e-6)
    assert gradgradcheck(points, _leaves(X, a), atol=1e-6)


def test_a_hessian_vector_product_is_the_plans_derivative():
    (C,) = _leaves(COST)
    (first,) = torch.autograd.grad(_exact(C, A, B, REG).value, C, create_graph=True)
    (second,) = torch.autograd.grad((first * W).sum(), C)
    (plans,) = torch.autograd.grad((_exact(C, A, B, REG).plan * W).sum(), C)
    torch.testing.assert_close(second, plans)


@pytest.mark.parametrize("tell", ["plan", "f", "value_linear"])
def test_what_has_no_second_derivative_says_so(tell):
    (C,) = _leaves(COST)
    out = getattr(_exact(C, A, B, REG), tell)
    (first,) = torch.autograd.grad(out.square().sum(), C, create_graph=True)
    with pytest.raises(RuntimeError, match=f"{tell} has first derivatives only: second"):
        first.sum().backward()
