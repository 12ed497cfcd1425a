"""What a result with derivatives is otherwise: the same numbers, and clear about what it lacks."""

import gc
import math
import warnings
import weakref

import pytest
import torch

import sinkhorn_ot as so

from .test_first_order import COST, REG, A, B, X


def _leaf(t=COST):
    return t.clone().requires_grad_()


def test_numbers_are_those_without_derivatives():
    tracked, plain = so.solve(_leaf(), A, B, 0.3), so.solve(COST, A, B, 0.3)
    for tell in ("value", "value_linear", "dual_value", "plan", "log_plan", "f", "g"):
        assert torch.equal(getattr(tracked, tell), getattr(plain, tell))
        assert getattr(tracked, tell).requires_grad
        assert not getattr(plain, tell).requires_grad
        assert not getattr(tracked.detach(), tell).requires_grad
    for tell in ("gap", "marginal_error", "converged", "n_iter"):
        assert not getattr(tracked, tell).requires_grad


def test_without_gradients_nothing_is_tracked():
    with torch.no_grad():
        r = so.solve(_leaf(), A, B, 0.3)
    assert r.derivatives is None
    r = so.solve(_leaf(), A, B, 0.3)
    with torch.no_grad():
        assert not r.value.requires_grad
    # a look without gradients does not spoil later ones
    assert r.value.requires_grad
    assert so.solve(COST, A, B, 0.3).derivatives is None


def test_numbers_can_be_differentiated_one_after_the_other():
    C = _leaf()
    r = so.solve(C, _leaf(A), _leaf(B), 0.3)
    r.value.backward()
    r.plan.square().sum().backward()
    r.value.backward()
    assert torch.isfinite(C.grad).all()


def test_no_cycle_keeps_a_result_alive():
    r = so.solve(_leaf(), A, B, 0.3)
    value, watch = r.value, weakref.ref(r.coupling)
    value.backward()
    gc.collect()
    gc.disable()
    try:
        del r, value
        assert watch() is None
    finally:
        gc.enable()


def test_changing_an_argument_before_the_backward_pass_is_told():
    C = _leaf()
    value = so.solve(C, A, B, 0.3).value
    with torch.no_grad():
        C += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_a_start_needs_no_derivatives():
    C = _leaf()
    r = so.solve(C, A, B, 0.3)
    for init in (r, (r.f, r.g), (None, r.g)):
        again = so.solve(C, A, B, 0.3, init=init)
        again.value.backward()


def test_a_plan_that_is_none_yet_warns_once_of_its_derivatives():
    r = so.solve(_leaf(), A, B, 0.01, max_iter=1, method="sinkhorn", on_fail="ignore")
    with pytest.warns(so.ConvergenceWarning, match="not converged, and are off by about"):
        r.value.backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r.value.backward()


def test_derivatives_that_rounding_decides_are_told():
    """Two groups joined by next to nothing: f hangs on that, the plan does not."""
    C = torch.rand(4, 4, dtype=torch.float64)
    C[:2, 2:] += 2.5
    C[2:, :2] += 2.5
    leaf = _leaf(C)
    r = so.solve(leaf, reg=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r.plan.square().sum().backward()
        r.value.backward()
    with pytest.warns(so.ConvergenceWarning, match="gradients may be off by a share of"):
        (r.f * COST[0, 0]).square().sum().backward()


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_what_comes_in_as_no_number_goes_out_as_one(number):
    """A loss that is scaled too far is skipped by whoever scales it, not stopped here."""
    C = _leaf()
    so.solve(C, reg=0.3).plan.backward(torch.full(COST.shape, number, dtype=torch.float64))
    assert not torch.isfinite(C.grad).any()


def test_an_open_constant_is_no_derivative_but_plans_are():
    """Two groups that serve only each other: their constants are apart, their plan is not."""
    C = COST[:4, :4].clone()
    C[:2, 2:] = C[2:, :2] = torch.inf
    leaf = _leaf(C)
    r = so.solve(leaf, reg=0.3)
    (grad,) = torch.autograd.grad((r.plan * COST[:4, :4]).sum(), leaf)
    parts = []
    for part in (slice(0, 2), slice(2, 4)):
        one = _leaf(C[part, part])
        w = torch.full((2,), 0.25, dtype=torch.float64)
        plan = so.solve(one, 2 * w, 2 * w, 0.3).plan / 2
        parts.append(torch.autograd.grad((plan * COST[part, part]).sum(), one)[0])
    torch.testing.assert_close(grad[:2, :2], parts[0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(grad[2:, 2:], parts[1], rtol=1e-6, atol=1e-9)
    with pytest.raises(RuntimeError, match="constants of f and g that forbidden pairs leave open"):
        (r.f[0] - r.f[3]).backward()


REFUSED = {
    "round": (lambda: so.solve(_leaf(), reg=0.3).round(), "round() has no derivatives"),
    "certificate": (lambda: so.solve(_leaf(), reg=0.3).certificate(), "certificate() has no deriv"),
    "a free side": (
        lambda: so.solve(COST, reg=0.3, unbalanced=torch.tensor(0.0, requires_grad=True)),
        "unbalanced must be above zero and finite where it requires grad, got 0",
    ),
    "an exact side": (
        lambda: so.solve(
            COST, reg=0.3, unbalanced=(1.0, torch.tensor(torch.inf, requires_grad=True))
        ),
        "unbalanced must be above zero and finite where it requires grad, got inf",
    ),
    "three penalties": (
        lambda: so.solve(COST, reg=0.3, unbalanced=torch.ones(3, requires_grad=True)),
        "unbalanced must be one penalty or two",
    ),
    "a stream": (
        lambda: so.Streamed(_leaf()),
        "source requires grad",
    ),
    "a wrong shape": (lambda: so.solve(_leaf(), _leaf(B), B, 0.3), "a must have shape (..., 5)"),
    "no number": (lambda: so.solve(_leaf(COST * torch.nan), reg=0.3), "cost"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_has_no_derivative_is_refused(row):
    call, text = REFUSED[row]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        call()
    assert text in str(caught.value)


def test_b_is_brought_to_the_mass_of_a_in_derivatives_too():
    """What a call does with weights that do not quite agree is a part of what it tells."""
    for tell in ("value", "g"):
        grads = []
        for scaled in (False, True):
            a, b = _leaf(3 * A), _leaf(3 * B)
            r = so.solve(COST, a, b * (a.sum() / b.sum()) if scaled else b, 0.3)
            getattr(r, tell).square().sum().backward()
            grads.append((a.grad, b.grad))
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        # scaling b alone changes nothing
        assert abs(float(grads[0][1] @ B)) < 1e-9


def test_both_penalties_from_one_tensor_have_derivatives():
    both = torch.tensor([0.5, 0.9], dtype=torch.float64, requires_grad=True)
    apart = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.5, 0.9)]
    so.solve(COST, A, 2 * B, REG, unbalanced=both).value.backward()
    so.solve(COST, A, 2 * B, REG, unbalanced=tuple(apart)).value.backward()
    torch.testing.assert_close(both.grad, torch.stack([t.grad for t in apart]))


def test_a_value_learns():
    """Points that follow the value's derivative arrive at their targets."""
    x = _leaf(0.01 * X[:4, :2])
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    optimizer = torch.optim.SGD([x], lr=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        so.solve(so.PointCloud(x, y), reg=0.05).value.backward()
        optimizer.step()
    assert float(so.solve_exact(so.PointCloud(x.detach(), y)).value) < 1e-6
