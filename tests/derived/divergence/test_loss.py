"""The divergence as a module."""

import copy
import io
import pickle

import pytest
import torch
from derived.divergence.test_debiased import A, B, D, X, Y
from torch import nn

import sinkhorn_ot as so


def test_is_the_call():
    loss = so.SinkhornDivergence(0.1)
    assert "reg=0.1, metric='sqeuclidean'" in repr(loss)
    assert torch.equal(loss(X, Y), so.sinkhorn_divergence(X, Y, reg=0.1).value)
    assert torch.equal(loss(A, X, B, Y), so.sinkhorn_divergence(X, Y, A, B, 0.1).value)
    options = {"metric": "cosine", "unbalanced": 0.4, "tol": 1e-5, "max_iter": 50}
    loss = so.SinkhornDivergence(0.1, **options)
    assert torch.equal(loss(X, Y), so.sinkhorn_divergence(X, Y, reg=0.1, **options).value)
    batch = torch.stack([X, X + 1])
    assert loss(batch, Y).shape == (2,)


@pytest.mark.parametrize("reg", [0.1, nn.Parameter(torch.tensor(0.1, dtype=D))])
def test_is_copied_and_kept(reg):
    loss = so.SinkhornDivergence(reg, metric="euclidean")
    want = loss(X, Y).detach()
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(other(X, Y), want)
    held = io.BytesIO()
    torch.save(loss.state_dict(), held)
    held.seek(0)
    other = so.SinkhornDivergence(reg, metric="euclidean")
    other.load_state_dict(torch.load(held))
    assert torch.equal(other(X, Y), want)
    assert "metric='euclidean'" in repr(loss)


def test_reg_may_be_learnt():
    reg = nn.Parameter(torch.tensor(0.5, dtype=D))
    loss = so.SinkhornDivergence(reg)
    assert list(loss.parameters()) == [reg]
    loss(X, Y).backward()
    ends = [float(so.SinkhornDivergence(0.5 + h)(X, Y)) for h in (-1e-5, 1e-5)]
    assert float(reg.grad) == pytest.approx((ends[1] - ends[0]) / 2e-5, rel=1e-5)


def test_autocast_changes_nothing():
    x, y = X.float().requires_grad_(), Y.float()
    loss = so.SinkhornDivergence(0.1)
    want = loss(x, y)
    want.backward()
    grad, x.grad = x.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(x, y)
        found.backward()
    assert torch.equal(found, want)
    assert torch.equal(x.grad, grad)


@pytest.mark.slow(3)
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_stands_in_a_compiled_step():
    loss = so.SinkhornDivergence(0.1)

    def step(x):
        return 2 * loss(x.sin(), Y)

    found = []
    for call in (step, torch.compile(step, backend="eager")):
        x = X.clone().requires_grad_()
        value = call(x)
        value.backward()
        found.append((value.detach(), x.grad))
    for plain, compiled in zip(*found, strict=True):
        assert torch.equal(plain, compiled)


def test_trains_a_map():
    line = nn.Linear(2, 2)
    x, loss = torch.randn(64, 2), so.SinkhornDivergence(0.1)
    y = torch.randn(64, 2) @ torch.tensor([[2.0, 0.5], [0.0, 0.3]]) + 1
    steps = torch.optim.Adam(line.parameters(), 0.1)
    values = []
    for _ in range(40):
        steps.zero_grad()
        value = loss(line(x), y)
        value.backward()
        steps.step()
        values.append(value.item())
    assert values[-1] < 0.1 * values[0]


def test_bad_calls_are_named():
    with pytest.raises(ValueError, match=r"takes \(x, y\) or \(a, x, b, y\), got 3"):
        so.SinkhornDivergence(0.1)(X, Y, A)
    with pytest.raises(ValueError, match="reg must be a finite number above zero"):
        so.SinkhornDivergence(-1.0)
    with pytest.raises(ValueError, match="on_fail must be one of"):
        so.SinkhornDivergence(0.1, on_fail="shout")
    with pytest.raises(ValueError, match="max_iter must be a whole number"):
        so.SinkhornDivergence(0.1, max_iter=0)
