"""The layer as PyTorch operators: checked by PyTorch itself, compiled, faked, mapped, exported."""

import pytest
import torch
from gradients.layer.plainly import weights
from torch._subclasses import FakeTensorMode

import sinkhorn_ot as so
import sinkhorn_ot.gradients.layer.operators


pytestmark = pytest.mark.filterwarnings("ignore")
OPS = torch.ops.sinkhorn_ot


def arguments(shared=True, dtype=torch.float32, log=False):
    work = torch.float64 if dtype == torch.float64 else torch.float32
    a, b = weights(1 if shared else 3, 4, dtype=work), weights(3, 5, dtype=work)
    return torch.randn(3, 4, 5, dtype=dtype), a, b, 1.5, 3, log


@pytest.mark.slow(3)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_pytorch_finds_no_fault(shared, dtype, log):
    x, a, b, *how = arguments(shared, dtype, log)
    torch.library.opcheck(OPS.normalize, (x, a, b, *how))
    inputs = [t.clone().requires_grad_() for t in (x.mT.contiguous().mT, a, b)]
    torch.library.opcheck(OPS.normalize, (*inputs, *how))
    for wanted in (False, True):
        torch.library.opcheck(OPS.normalize_backward, (torch.randn_like(x), x, a, b, *how, wanted))


def step(x, w, a, **how):
    P = so.normalize((x @ w).unflatten(-1, (4, 4)), 5, a.softmax(-1), **how)
    return (P * torch.arange(16.0).view(4, 4)).square().mean()


@pytest.mark.slow(4)
@pytest.mark.parametrize("how", [{}, {"first": "columns", "log": True, "reg": 0.5}], ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiled_training_step_is_the_eager_one(how, dynamic):
    at = [torch.randn(7, 3), torch.randn(3, 16), torch.randn(4)]
    losses, grads = [], []
    for act in (step, torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=dynamic)):
        inputs = [t.clone().requires_grad_() for t in at]
        losses.append(act(*inputs, **how))
        grads.append(torch.autograd.grad(losses[-1], inputs))
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-6)
    for eager, compiled in zip(*grads, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-6, atol=1e-6)


def test_operators_and_eager_calls_have_the_same_derivatives():
    x, a, b, *how = arguments(shared=False, dtype=torch.float64)
    at = [t.requires_grad_() for t in (x, a, b)]
    G = torch.randn_like(x)
    got = torch.autograd.grad(OPS.normalize(*at, *how), at, G, create_graph=True)
    want = torch.autograd.grad(so.normalize(x, 3, a, b, reg=1 / 1.5), at, G, create_graph=True)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)
    again = (torch.autograd.grad(sum(t.square().sum() for t in gs), at) for gs in (got, want))
    for g, w in zip(*again, strict=True):
        torch.testing.assert_close(g, w)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "mapped", [(0, 0, 0), (0, None, None), (None, 0, None), (2, None, 1)], ids=str
)
def test_vmap_of_operators_is_a_loop(mapped, shared):
    x, a, b, *how = arguments(shared)
    G = torch.randn(3, 4, 5)

    def both(G, x, a, b):
        return OPS.normalize(x, a, b, *how), *OPS.normalize_backward(G, x, a, b, *how, True)

    def one(t, d, k):
        return t if d is None else t.select(d, k)

    stacked = [
        t if d is None else torch.stack([t, 1.5 * t], d)
        for t, d in zip((x, a, b), mapped, strict=True)
    ]
    got = torch.vmap(both, (None, *mapped))(G, *stacked)
    for k in range(2):
        at = [one(t, d, k) for t, d in zip(stacked, mapped, strict=True)]
        for g, w in zip(got, both(G, *at), strict=True):
            torch.testing.assert_close(g[k], w)


def test_fake_tensors_tell_shapes():
    with FakeTensorMode():
        x = torch.randn(2, 3, 4, requires_grad=True)
        y = so.normalize(x, first="columns")
        assert y.shape == (2, 3, 4)
        y.sum().backward()
        assert x.grad.shape == (2, 3, 4)


def test_export_keeps_one_operator():
    class Layer(torch.nn.Module):
        def forward(self, x):
            return so.normalize(x, 3)

    x = torch.randn(2, 4, 4)
    program = torch.export.export(Layer(), (x,))
    torch.testing.assert_close(program.module()(x), so.normalize(x, 3))
    code = program.graph_module.code + "".join(
        m.code for m in program.graph_module.children() if hasattr(m, "code")
    )
    assert code.count("sinkhorn_ot.normalize") == 1
