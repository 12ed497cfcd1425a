"""Training steps under torch.compile and torch.export, beside the same steps taken eagerly."""

import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import sinkhorn_ot as so
import sinkhorn_ot.adapters.swav.operators  # noqa: F401  (registers them)


pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    """A backbone with prototypes, and the loss of two crops."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 8))
        self.prototypes = nn.Linear(8, 15, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.prototypes(functional.normalize(self.backbone(x), dim=-1))


def step(net: nn.Module, crops: Tensor) -> Tensor:
    """Return SwAV's loss of two crops: each predicts the codes of the other."""
    first, second = net(crops[0]), net(crops[1])
    q, p = so.swav_codes(first), so.swav_codes(second)
    logs = [functional.log_softmax(s / 0.1, -1) for s in (first, second)]
    return -((q * logs[1]).sum(-1).mean() + (p * logs[0]).sum(-1).mean()) / 2


def grads(net: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


@pytest.mark.slow(40)
def test_a_whole_swav_step_equals_eager():
    """Forward, codes, loss, backward and update, for three steps and two sizes of a batch."""
    torch._dynamo.reset()
    eager, compiled = Net(), Net()
    act = torch.compile(step, fullgraph=True)
    ways = [(step, eager), (act, compiled)]
    rates = [torch.optim.SGD(net.parameters(), 0.1) for _, net in ways]
    for size in (20, 20, 24):
        crops, losses = torch.randn(2, size, 12), []
        for (way, net), rate in zip(ways, rates, strict=True):
            rate.zero_grad()
            loss = way(net, crops)
            loss.backward()
            rate.step()
            losses.append(loss.detach())
        torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(grads(eager), grads(compiled), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        list(eager.parameters()), list(compiled.parameters()), rtol=1e-6, atol=1e-6
    )


@pytest.mark.slow(5)
@pytest.mark.parametrize("options", [{}, {"hard": True}, {"last": 3}, {"n_iter": 7}], ids=str)
def test_compiled_codes_are_the_eager_ones(options):
    torch._dynamo.reset()
    act = torch.compile(lambda s: so.swav_codes(s, **options), fullgraph=True, backend="aot_eager")
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        S, mask = torch.rand(2, 17, 11).to(dtype), torch.rand(17) > 0.3
        assert torch.equal(act(S), so.swav_codes(S, **options))
        masked = torch.compile(
            lambda s, m: so.swav_codes(s, mask=m, **options), fullgraph=True, backend="aot_eager"
        )
        assert torch.equal(masked(S, mask), so.swav_codes(S, mask=mask, **options))


@pytest.mark.slow(3)
def test_a_compiled_step_looks_at_numbers_too():
    act = torch.compile(so.swav_codes, fullgraph=True, backend="aot_eager")
    S = torch.rand(5, 4)
    S[1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"scores must be finite, got nan at index .*1, 2"):
        act(S)


@pytest.mark.slow(5)
def test_a_first_compile_writes_no_code_for_the_steps(monkeypatch):
    """C++ for them took most of a minute, and Triton's for a fill seconds on a GPU."""
    from torch._inductor import graph

    torch._dynamo.reset()
    written = []
    save = graph.GraphLowering.codegen
    monkeypatch.setattr(
        graph.GraphLowering, "codegen", lambda g: written.append(found := save(g)) or found
    )
    started = time.process_time()
    with torch._inductor.config.patch(force_disable_caches=True):
        torch.compile(so.swav_codes, fullgraph=True)(torch.rand(64, 30))
    assert time.process_time() - started < 30
    text = str(written)
    assert "sinkhorn_ot.codes" in text
    assert "async_compile.cpp" not in text.replace("async_compile.cpp_pybinding = None", "")


@pytest.mark.slow(5)
def test_export_holds_the_operator():
    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: Tensor) -> Tensor:
            return so.swav_codes(self.net(x))

    model, x = Codes(), torch.randn(20, 12)
    size = torch.export.Dim("size", min=2, max=4096)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: size},))
    assert "sinkhorn_ot.codes" in program.graph_module.print_readable(print_output=False)
    for rows in (20, 33):
        x = torch.randn(rows, 12)
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-6, atol=1e-6)


def _arguments() -> dict[str, list[tuple]]:
    """Return arguments of every operator of the package."""
    keep = torch.rand(2, 7) > 0.3
    S, z, c = torch.rand(2, 7, 5), torch.randn(2, 7, 3), torch.randn(2, 5, 3)
    how = (3.0, 3, 4, False, torch.float32), (3.0, 2, 7, True, torch.float64)
    return {
        "codes": [(S, kept, *h) for kept in (None, keep) for h in how],
        "feature_codes": [(z, c, kept, *h) for kept in (None, keep) for h in how],
    }


def test_no_operator_is_forgotten():
    names = [name.split("::")[1] for name in torch._C._dispatch_get_all_op_names()
             if name.startswith("sinkhorn_ot::")]  # fmt: skip
    assert sorted(names) == sorted(_arguments())


@pytest.mark.slow(3)
@pytest.mark.parametrize("name", _arguments())
def test_pytorch_finds_no_fault_with_operators(name):
    for args in _arguments()[name]:
        torch.library.opcheck(getattr(torch.ops.sinkhorn_ot, name), args)
