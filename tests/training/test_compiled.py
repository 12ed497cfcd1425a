"""Training steps under torch.compile and torch.export, beside the same steps taken eagerly."""

import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

import sinkhorn_ot as so

# they register operators
import sinkhorn_ot.adapters.swav.operators
import sinkhorn_ot.gradients.layer.operators
import sinkhorn_ot.solve.operators


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


C, X, Y = torch.rand(3, 5, 6), torch.rand(5, 2), torch.rand(6, 2)
A = torch.tensor([0.1, 0.0, 0.3, 0.2, 0.4])
NUMBERS = {
    "plan": lambda r: r.plan,
    "log_plan": lambda r: r.log_plan.clamp(min=-300),
    "potentials": lambda r: (r.f, r.g),
    "values": lambda r: (r.value, r.value_linear, r.dual_value, r.gap, r.marginal_error),
    "products": lambda r: (r.apply(Y[:, 0]), r.apply_transpose(X), r.barycentric(Y)),
}
SOLVES = {
    "batch": lambda n: so.solve(2 * C, A, reg=0.1, n_iter=n),
    "regs": lambda n: so.solve(2 * C.double(), reg=torch.tensor([0.1, 0.2, 0.3]), n_iter=n),
    "relaxed": lambda n: so.solve(C[0] * 2, A, None, 0.1, unbalanced=(0.5, None), n_iter=n),
    "free": lambda n: so.solve((C[0] * 2).half(), reg=0.1, unbalanced=0, n_iter=n),
    "cloud": lambda n: so.solve(so.PointCloud(2 * X, Y, "euclidean"), reg=0.1, n_iter=n),
}


@pytest.mark.slow(1)
@pytest.mark.parametrize("solve", SOLVES)
@pytest.mark.parametrize("number", NUMBERS)
def test_fixed_sweeps_are_in_a_graph_without_a_break(number, solve):
    torch._dynamo.reset()
    counts = (1, 4) if number == "plan" else (4,)
    for n in counts:
        act = lambda n=n: NUMBERS[number](SOLVES[solve](n))  # noqa: E731
        got = torch.compile(act, fullgraph=True, backend="aot_eager")()
        torch.testing.assert_close(got, act(), rtol=1e-6, atol=1e-7)


@pytest.mark.slow(5)
def test_a_compiled_layer_of_fixed_sweeps_trains_what_surrounds_it():
    def layer(net: nn.Module, x: Tensor) -> Tensor:
        s = net(x)
        P = so.solve(-s.detach(), reg=0.1, n_iter=5).plan
        return -(P * functional.log_softmax(s, -1)).sum()

    torch._dynamo.reset()
    x, nets = torch.randn(20, 12), (Net(), Net())
    for way, net in zip((layer, torch.compile(layer, fullgraph=True)), nets, strict=True):
        way(net, x).backward()
    torch.testing.assert_close(grads(nets[0]), grads(nets[1]), rtol=1e-5, atol=1e-6)


@pytest.mark.slow(3)
def test_export_of_fixed_sweeps_and_codes():
    class Both(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return so.swav_codes(x), so.solve(x, reg=0.2, n_iter=3).plan

    rows = torch.export.Dim("rows", min=2, max=100)
    program = torch.export.export(Both(), (C[0],), dynamic_shapes=({0: rows},))
    for x in (C[0], torch.rand(9, 6)):
        torch.testing.assert_close(program.module()(x), Both()(x), rtol=1e-6, atol=1e-7)


def test_what_no_graph_holds_breaks_it_and_says_so():
    torch._dynamo.reset()

    def act(c: Tensor) -> tuple[Any, Tensor]:
        r = so.solve(c, reg=0.1, n_iter=3)
        return r.message, r.plan * 2

    eager = act(C)
    found = torch.compile(act, backend="eager")(C)
    assert found[0] == eager[0]
    torch.testing.assert_close(found[1], eager[1])
    for refused in (act, lambda c: so.solve(c, reg=0.1).plan):
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported, match="solve does what numbers say"):
            torch.compile(refused, fullgraph=True, backend="eager")(C)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda c: so.solve(c, reg=0.1, n_iter=0).plan, "n_iter must be"),
        (lambda c: so.solve(c, reg=-0.1, n_iter=2).plan, "reg must be"),
        (lambda c: so.solve(c, -c[0, :, 0], reg=0.1, n_iter=2).plan, "a must be non-negative"),
        (lambda c: so.solve(c / 0, reg=0.1, n_iter=2).plan, "cost must"),
        (
            lambda c: so.solve(c.requires_grad_(), reg=0.1, n_iter=2, unbalanced=1.0).plan,
            "n_iter must not be",
        ),
    ],
)
def test_bad_input_is_refused_in_graphs_too(act, message):
    torch._dynamo.reset()
    with pytest.raises(ValueError, match=message):
        torch.compile(act, backend="aot_eager")(C.clone())


def test_shapes_and_kinds_on_a_device_that_is_not_here():
    with FakeTensorMode():
        cost = torch.empty(3, 5, 6, device="cuda", dtype=torch.bfloat16)
        asked = cost, None, "", 1.0, None, None, None, 0.1, [math.inf, 0.5]
        u, v = torch.ops.sinkhorn_ot.sweeps(*asked, 4)
        P = torch.ops.sinkhorn_ot.swept(*asked, "plan", u, v, None)
    assert [(t.shape, t.dtype, t.device.type) for t in (u, v, P)] == [
        ((3, 5), torch.float32, "cuda"), ((3, 6), torch.float32, "cuda"),
        ((3, 5, 6), torch.float32, "cuda"),
    ]  # fmt: skip


def _arguments() -> dict[str, list[tuple]]:
    """Return arguments of every operator of the package."""
    keep = torch.rand(2, 7) > 0.3
    S, z, c = torch.rand(2, 7, 5), torch.randn(2, 7, 3), torch.randn(2, 5, 3)
    exact, u, v = [math.inf] * 2, torch.rand(2, 5).double(), torch.rand(2, 6).double()
    problems = [
        (C[:2], None, "", 1.0, A, None, None, 0.1, exact),
        (
            X.expand(2, 5, 2),
            Y,
            "euclidean",
            1.0,
            None,
            None,
            torch.tensor([0.1, 0.2]),
            0.0,
            [0.5, 0.0],
        ),
    ]
    how = (3.0, 3, 4, False, torch.float32), (3.0, 2, 7, True, torch.float64)
    layer = torch.randn(2, 4, 3), torch.rand(1, 4), torch.rand(2, 3), 1.5, 3, False
    return {
        "normalize": [layer],
        "normalize_backward": [(layer[0], *layer, wanted) for wanted in (False, True)],
        "codes": [(S, kept, *h) for kept in (None, keep) for h in how],
        "sweeps": [(*p, 3) for p in problems],
        "swept": [(*p, name, u, v, None) for p in problems for name in ("plan", "value")]
        + [(*problems[0], "apply", u, v, torch.rand(6, 2))],
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
