"""What the layer does on a GPU: one launch forward and one back, and nothing besides."""

import pytest
import torch
from counting import Operators
from gradients.layer.plainly import weights

import sinkhorn_ot as so
from sinkhorn_ot.gradients.layer import operators
from sinkhorn_ot.problem import checks


pytest.importorskip("triton", reason="triton is not installed, so there are no kernels")
from sinkhorn_ot.kernels import normalize as kernels  # noqa: E402


@pytest.fixture(autouse=True)
def _poison_empty():
    """Leave memory as it comes: to fill it would be counted."""


@pytest.fixture
def launched(monkeypatch):
    """Be on a GPU, but for the numbers."""
    names = []
    monkeypatch.setattr(operators, "has_kernels", lambda x: True)
    monkeypatch.setattr(checks, "seen_through", lambda *_: False)
    # no number is looked at there
    monkeypatch.setattr(checks, "weights", lambda name, x: x)
    monkeypatch.setattr(kernels, "launch", lambda kernel, *_, **__: names.append(kernel.__name__))
    return names


def others(act):
    with Operators() as seen:
        act()
    return [name for name in seen.names if name not in ("lt", "all", "_local_scalar_dense", "item")]


@pytest.mark.parametrize("how", [{}, {"first": "columns"}, {"log": True}, {"reg": 0.3}], ids=str)
@pytest.mark.parametrize("shape", [(70, 4, 4), (2, 3, 8, 8)], ids=str)
def test_one_forward_and_one_back(launched, shape, how):
    x, G = torch.randn(shape, requires_grad=True), torch.randn(shape)
    results = []
    assert others(lambda: results.append(so.normalize(x, **how))) == []
    assert launched == ["_normalize"]
    assert others(lambda: torch.autograd.grad(results, x, G)) == []
    assert launched == ["_normalize", "_normalize_back"]


def test_weights_of_each_problem_cost_no_more(launched):
    x, G = torch.randn(70, 4, 4, requires_grad=True), torch.randn(70, 4, 4)
    a, b = (weights(70, 4, dtype=torch.float32).requires_grad_() for _ in range(2))
    assert others(lambda: torch.autograd.grad(so.normalize(x, 3, a, b), (x, a, b), G)) == []
    assert launched == ["_normalize", "_normalize_back"]


def test_derivatives_to_shared_weights_are_added_up(launched):
    x, a = torch.randn(70, 4, 4, requires_grad=True), weights(4, dtype=torch.float32)
    G = torch.randn(70, 4, 4)
    one = a.requires_grad_(), weights(4, dtype=torch.float32)
    assert others(lambda: torch.autograd.grad(so.normalize(x, 3, *one), one[0], G)) == ["sum"] * 2
    assert len(launched) == 2


def test_strides_that_leave_room_are_copied_first(launched):
    x = torch.randn(70, 4, 8)[..., ::2]
    assert others(lambda: so.normalize(x)) == ["copy_"]
    assert launched == ["_normalize"]
