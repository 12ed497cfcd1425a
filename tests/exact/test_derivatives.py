"""Derivatives of the optimum of a linear program, by its duals."""

import pytest
import torch
from torch.autograd import gradcheck

import sinkhorn_ot as so


N, M = 6, 5
SEED = torch.Generator().manual_seed(0)
COST, COSTS = (torch.rand(*s, N, M, dtype=torch.float64, generator=SEED) for s in ((), (3,)))
A, B, MANY = (torch.rand(*s, dtype=torch.float64, generator=SEED) for s in ((N,), (M,), (3, N)))
X, Y = (torch.randn(n, 2, dtype=torch.float64, generator=SEED) for n in (N, M))


def _shares(w):
    return w / w.sum(-1, keepdim=True)


def _leaves(*tensors):
    return [t.clone().requires_grad_() for t in tensors]


def test_other_engines_know_duals_too():
    def call(C, a, b):
        return so.solve_exact(C, _shares(a), _shares(b), engine="highs").value

    assert gradcheck(call, _leaves(COST[:3, :3], A[:3], B[:3]))


@pytest.mark.parametrize("tell", ["value", "value_linear", "dual_value"])
def test_values_have_the_derivatives_of_their_duals(tell):
    def call(C, a, b):
        return getattr(so.solve_exact(C, _shares(a), _shares(b)), tell)

    assert gradcheck(call, _leaves(COST, A, B))
    # a batch, with its own costs or one
    assert gradcheck(call, _leaves(COSTS, MANY, B))
    assert gradcheck(call, _leaves(COST, MANY, B))


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "dot", "cosine"])
def test_values_of_points_have_derivatives(metric):
    def call(x, y, a):
        return so.solve_exact(so.PointCloud(x, y, metric), _shares(a), _shares(B)).value

    assert gradcheck(call, _leaves(X, Y, A))


def test_weights_beyond_the_constraint_are_scaled_as_the_call_scales_them():
    """Without weights scaled by the caller, b is brought to the mass of a."""
    a, b = _leaves(_shares(A), _shares(B))
    so.solve_exact(COST, a, b).value.backward()
    a2, b2 = _leaves(_shares(A), _shares(B))
    so.solve_exact(COST, a2, b2 * (a2.sum() / b2.sum())).value.backward()
    torch.testing.assert_close(a.grad, a2.grad)
    torch.testing.assert_close(b.grad, b2.grad)
    assert abs(float(b.grad @ b.detach())) < 1e-12


def test_a_plan_that_jumps_has_none():
    (C,) = _leaves(COST)
    r = so.solve_exact(C)
    assert not r.detach().plan.requires_grad
    with pytest.raises(RuntimeError, match="plan of solve_exact has no derivative"):
        r.plan.sum().backward()
    (first,) = torch.autograd.grad(r.value, C, create_graph=True)
    with pytest.raises(RuntimeError, match="value of solve_exact has first derivatives only"):
        first.sum().backward()
