"""What a divergence keeps of its arguments: copies, and functions only where gradients are on."""

import copy
import pickle

import pytest
import torch

import sinkhorn_ot as so


X, Y = (torch.randn(n, 2, generator=torch.Generator().manual_seed(n)).double() for n in (5, 6))


def _weights():
    return torch.linspace(0.5, 1.5, 5, dtype=torch.float64)


@pytest.mark.parametrize("unbalanced", [None, 1.0])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_is_a_constant(unbalanced, mode):
    a, reg = _weights().requires_grad_(), torch.tensor(0.1, requires_grad=True)
    with mode():
        r = so.sinkhorn_divergence(X, Y, a / a.sum(), reg=reg, unbalanced=unbalanced)
    assert not r.value.requires_grad
    assert not r.f.requires_grad


def test_copies_hold_constants():
    a = _weights().requires_grad_()
    r = so.sinkhorn_divergence(X, Y, torch.softmax(a, 0), reg=0.1, unbalanced=1.0)
    for other in (copy.deepcopy(r), pickle.loads(pickle.dumps(r))):
        assert torch.equal(other.value, r.value)
        assert not other.value.requires_grad
    assert r.value.requires_grad


def test_weights_that_change_later_change_nothing():
    a = _weights()
    r = so.sinkhorn_divergence(X, Y, a, reg=0.1, unbalanced=1.0)
    was = r.value.clone()
    a.mul_(2)
    assert torch.equal(r.value, was)


def test_inside_a_transform_it_says_so():
    with pytest.raises(ValueError, match="x must be a tensor of its own, got one inside a transf"):
        torch.func.grad(lambda x: so.sinkhorn_divergence(x, Y, reg=0.1).value)(X)
