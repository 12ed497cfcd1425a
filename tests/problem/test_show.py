"""Everything says in a line what it is, and computes nothing for that."""

import dataclasses
import functools
import importlib
import importlib.util
import pkgutil
import types
import typing
import warnings
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import sinkhorn_ot as so
from sinkhorn_ot import adapters, testing
from sinkhorn_ot.adapters.swav import SwAVCodes, assign
from sinkhorn_ot.exact.engines import Flow, network_simplex
from sinkhorn_ot.problem import (
    Bounds,
    Cost,
    Dense,
    Facts,
    PointCloud,
    Problem,
    Streamed,
    in_short,
    make,
    shown,
)
from sinkhorn_ot.results import Coupling, Solution, Stored
from sinkhorn_ot.solvers.presolve import Support, support


INF, NAN = float("inf"), float("nan")
LONGEST = 240
# the demonstration is a user; kernels are a leaf, and those who launch them need triton
SKIPPED = ("sinkhorn_ot.command.demo", "sinkhorn_ot.kernels")
TRITON = importlib.util.find_spec("triton") is not None
LAUNCHES = ("sinkhorn_ot.sweeps.gpu", "sinkhorn_ot.adapters.swav.operators")


def classes() -> list[type]:
    """Every dataclass and every named tuple of the package."""
    found = {}
    for info in pkgutil.walk_packages(so.__path__, "sinkhorn_ot."):
        if info.name.startswith(SKIPPED) or (info.name in LAUNCHES and not TRITON):
            continue
        for cls in vars(importlib.import_module(info.name)).values():
            ours = isinstance(cls, type) and cls.__module__ == info.name
            if ours and (dataclasses.is_dataclass(cls) or hasattr(cls, "_fields")):
                found[f"{info.name}.{cls.__qualname__}"] = cls
    return [found[name] for name in sorted(found)]


CLASSES = classes()


@functools.cache
def large() -> torch.Tensor:
    return torch.rand(1000, 1000)


def instance(cls: type):
    """An instance with a million numbers in every field that can hold them, unchecked."""
    hints = typing.get_type_hints(cls)
    if hasattr(cls, "_fields"):
        return cls(*(value(hints[name]) for name in cls._fields))
    made = object.__new__(cls)
    for field in dataclasses.fields(cls):
        object.__setattr__(made, field.name, value(hints[field.name]))
    return made


def value(hint):
    """Something of a type, and as large as it can be."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return value(inside[0])
    if origin is np.ndarray:
        return large().numpy()
    if origin is list:
        return [value(inside[0])] * 100_000
    if origin is tuple:
        return tuple(map(value, inside))
    # a protocol is no class to make an instance of
    hint = {Cost: PointCloud, Coupling: Stored}.get(hint, hint)
    if hint in CLASSES:
        return instance(hint)
    plain = {
        torch.Tensor: large(),
        # arrays or tensors
        typing.Any: large(),
        torch.Size: torch.Size([1_000_000]),
        torch.dtype: torch.float64,
        torch.device: torch.device("cpu"),
        so.Status: so.Status.NOT_FINITE,
        str: "a name " * 100,
        int: 10**9,
        float: -1.23456789e-100,
        bool: False,
    }
    return plain.get(hint, object())


def short(x) -> str:
    text = repr(x)
    assert len(text.splitlines()) <= 3, text
    assert len(text) <= LONGEST, text
    assert "tensor(" not in text
    assert "array(" not in text
    return text


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__qualname__)
def test_no_class_of_the_package_prints_a_tensor_in_full(cls: type):
    """Put @shown above the class that fails here."""
    assert short(instance(cls)).startswith(cls.__name__ + "(")


def test_the_walk_sees_the_classes_that_matter():
    assert len(CLASSES) > 40
    assert {so.Transport, Problem, PointCloud, Flow, Support, so.Sinkhorn} <= set(CLASSES)
    assert testing.Known in CLASSES
    # and an instance is as large as it should be
    assert instance(so.Transport).problem.cost.x.numel() == 10**6


@functools.cache
def results() -> list:
    """Results of public functions, small and large, of one problem and of batches."""
    torch.manual_seed(0)
    C, a = torch.rand(300, 200), torch.rand(300, dtype=torch.float64)
    a[:200] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", so.ConvergenceWarning)
        one = so.solve(C, reg=0.1)
        many = so.solve(torch.rand(2, 7, 9, 5), reg=0.3)
        fixed = so.solve(torch.rand(1, 1), reg=0.3, n_iter=2)
        lazy = so.solve(PointCloud(torch.rand(1000, 3), torch.rand(1000, 3)), reg=1.0, n_iter=1)
        logs = torch.randn(3, 400, 10).log_softmax(-1)
        deeper = adapters.deepercluster_labels(torch.rand(200, 3), 4, 2)
        labels = [so.sela_labels(logs[0]), so.sela_labels(logs, max_iter=3)]
    plain = Solution(one.coupling.u, one.coupling.v, None, one.sweeps, one.statuses)
    few = make(C, a / a.sum(), None, 0.1)
    weights = np.full(30, 1 / 30)
    flow = network_simplex(np.random.default_rng(0).random((30, 30)), weights, weights, None)
    found = [one, many, fixed, lazy, so.solve_exact(torch.rand(20, 20))]
    found += [one.certificate(), many.certificate(), plain, one.coupling]
    found += [so.balanced_labels(torch.rand(3000, 10)), so.balanced_labels(torch.rand(2, 7, 3))]
    found += [*labels, assign(torch.rand(2, 500, 30)), adapters.moe_router(logs)]
    # what a rank without samples gets
    none = torch.zeros(0)
    found += [deeper, deeper.clusters, dataclasses.replace(labels[0], labels=none.long())]
    found += [one.problem, lazy.problem, few, support(few), flow]
    found += [Dense(C), PointCloud(C, C), Streamed(C), Streamed(C).facts]
    return found


def test_results_of_every_kind_are_short_and_well_formed():
    for x in results():
        assert short(x).startswith(type(x).__name__ + "(")
        cells = table(x._repr_html_())
        assert cells[0] == type(x).__name__
        assert len(cells) % 2 == 1
        assert max(map(len, cells)) <= 120
    kinds = set(map(type, results()))
    public = {so.Transport, so.Certificate, so.BalancedLabels, so.SelaLabels}
    theirs = {adapters.Routing, adapters.DeepClusterLabels, adapters.DeeperClusterLabels}
    inside = {Solution, SwAVCodes, Facts, Problem, Dense, Streamed, Flow, Support}
    assert public | theirs | inside <= kinds


def test_what_is_read_off_a_line():
    one, many, fixed = results()[:3]
    assert repr(one).startswith("Transport(batch=(), n=300, m=200, method=")
    assert "status=CONVERGED, n_iter=" in repr(one)
    assert f"marginal_error={float(one.marginal_error):.4g})" in repr(one)
    assert "batch=(2, 7), n=9, m=5" in repr(many)
    assert "status=14 CONVERGED" in repr(many)
    assert f"marginal_error={float(many.marginal_error.max()):.4g})" in repr(many)
    assert "status=FIXED, n_iter=2, marginal_error='not measured'" in repr(fixed)
    line = repr(so.balanced_labels(torch.rand(3000, 10)))
    assert "labels=int64 (3000,), counts=int64 (10,) all 300, value=" in line
    # what does not fit is left out where it is deepest
    lazy = results()[3]
    assert repr(lazy.problem).startswith("Problem(cost=PointCloud(...), a=float64 (1, 1000) all")
    assert repr(lazy.problem).endswith(", aside=None, rounded=0, far=inf, one_reg=1)")
    x = torch.rand(1_000_000, 3)
    assert repr(PointCloud(x, x[:5], "dot")) == (
        "PointCloud(x=float32 (1000000, 3), y=float32 (5, 3) "
        f"{float(x[:5].min()):.4g}..{float(x[:5].max()):.4g}, metric='dot', memory=1073741824, "
        "power=1, scale=None)"
    )


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.tensor(0.25), "0.25"),
        (torch.tensor(True), "True"),
        (torch.tensor([1.0, NAN, INF]), "[1, nan, inf]"),
        (torch.tensor([[3, 1], [2, 4]]), "int64 (2, 2) 1..4"),
        (torch.full((7,), 3), "int64 (7,) all 3"),
        (torch.tensor([1.0, 1.00001] * 4), "float32 (8,) about 1"),
        (torch.tensor([-INF, 0.0, INF] * 4), "float32 (12,) -inf..inf"),
        (torch.tensor([1.0, NAN] * 4), "float32 (8,) with nan"),
        (torch.tensor([True, False, True] * 4), "bool (12,) 8 true"),
        (torch.tensor([0.5, 2.0], dtype=torch.bfloat16), "[0.5, 2]"),
        (torch.tensor([0.5, 2.0] * 9).half(), "float16 (18,) 0.5..2"),
        (torch.zeros(8, dtype=torch.cfloat), "complex64 (8,)"),
        (torch.zeros(0), "float32 (0,)"),
        (torch.zeros(3, 0), "float32 (3, 0)"),
        (torch.zeros(5, 2, device="meta"), "float32 (5, 2) on meta"),
        (torch.zeros((), device="meta"), "float32 () on meta"),
        (torch.arange(1_000_000), "int64 (1000000,)"),
        (torch.eye(3).to_sparse(), "float32 (3, 3)"),
        (torch.arange(8.0, requires_grad=True), "float32 (8,) 0..7"),
        (torch.nn.Parameter(torch.ones(1)), "[1]"),
        (np.arange(6).reshape(2, 3), "int64 (2, 3) 0..5"),
        (np.float32(0.5), "0.5"),
        (np.int64(7), "7"),
        ([so.Status.STALLED], "STALLED"),
        ([so.Status.STALLED, *[so.Status.CONVERGED] * 12], "12 CONVERGED, 1 STALLED"),
        ([0.125] * 9, "list of 9"),
        ([0.1234567, None], "[0.1235, None]"),
        (torch.Size([5]), "(5,)"),
        (torch.float64, "float64"),
        ("a" * 100, repr("a" * 57 + "...")),
        (Bounds(0.123456, INF), "Bounds(low=0.1235, high=inf, forbids=False)"),
        (large, "_lru_cache_wrapper"),
    ],
)
def test_values(x, text):
    assert in_short(x) == text


def test_a_memory_map_is_not_read(tmp_path):
    x = np.memmap(tmp_path / "x", dtype=np.float32, shape=(3, 2), mode="w+")
    assert in_short(x) == "float32 (3, 2)"


class Watched(TorchDispatchMode):
    """Counts the operations of torch, by how many numbers they see."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[max(x.numel() for x in args if isinstance(x, torch.Tensor))] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.slow(2)
def test_nothing_is_computed():
    C = torch.rand(1500, 1200)
    r = so.solve(C, reg=0.1)
    # what the solve itself has found
    before = [set(vars(x)) for x in (r, r.coupling, r.problem, r.problem.cost)]
    streamed, labels = Streamed(C), so.balanced_labels(torch.rand(3000, 4))
    with Watched() as watched:
        for x in (r, r.coupling, r.problem, r.problem.cost, streamed, labels):
            repr(x)
            x._repr_html_()
    assert [set(vars(x)) for x in (r, r.coupling, r.problem, r.problem.cost)] == before
    assert watched.seen
    assert max(watched.seen) <= 1000


def test_what_cannot_be_looked_at_is_not():
    real = torch.rand(4)
    with FakeTensorMode():
        fake = torch.rand(4)
        assert in_short(fake) == in_short(real) == "float32 (4,)"
        assert repr(so.Certificate(fake, fake, fake, fake)).startswith(
            "Certificate(lower=float32 ("
        )
    said = []
    torch.vmap(lambda x: said.append(in_short(x)) or x)(torch.rand(3, 2))
    assert said == ["float32 (2,)"]
    t = torch.zeros(2, device="meta")
    codes = SwAVCodes(t, t, t, t, t, 0.05)
    assert repr(codes).count("float32 (2,) on meta") == 5
    assert repr(codes) in repr([codes])
    table(codes._repr_html_())


def test_an_answer_elsewhere_is_not_waited_for(monkeypatch):
    """The meta device stands for an accelerator."""
    read, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: read.append(x.device.type) or tolist(x))
    r = results()[1]
    away = dataclasses.replace(r, sweeps=r.sweeps.to("meta"), measured=r.measured.to("meta"))
    assert "n_iter=int64 (2, 7) on meta, marginal_error=float64 (14,) on meta)" in repr(away)
    bank = so.LabelBank(1_000_000, 10, heads=2)
    assert repr(bank) == "LabelBank(N=1000000, K=10, heads=2, updates=0)"
    assert repr(bank.to("meta")).endswith("updates=int64 () on meta)")
    assert set(read) == {"cpu"}


def test_half_built_objects_can_be_looked_at():
    """A debugger stops in the middle of an __init__."""
    assert repr(object.__new__(Streamed)) == "Streamed()"
    half = object.__new__(PointCloud)
    object.__setattr__(half, "x", large())
    assert repr(half) == "PointCloud(x=float32 (1000, 1000))"


def test_what_says_nothing_else_shows_what_is_public():
    @shown
    class Box:
        def __init__(self) -> None:
            self.size, self._hidden = 3, large()

    assert repr(Box()).endswith("Box(size=3)")


class Cells(HTMLParser):
    """Reads a table, and that every tag is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.cells, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.attributes += attrs
        if tag in ("caption", "th", "td"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        assert self.open[-1] in ("caption", "th", "td")
        self.cells[-1] += data


def table(text: str) -> list[str]:
    """The texts of a table's cells."""
    parser = Cells()
    parser.feed(text)
    parser.close()
    assert not parser.open
    # colours would be wrong in a dark notebook or in a light one
    assert not [v for _, v in parser.attributes if "color" in v or "background" in v]
    return parser.cells


def test_a_table_is_escaped_and_cut():
    r = dataclasses.replace(results()[0], method="<script>alert('&')</script>")
    assert "<script>" not in r._repr_html_()
    cells = table(r._repr_html_())
    assert cells[cells.index("method") + 1] == r.method
    assert cells[cells.index("status") + 1] == "CONVERGED"
    statuses = [so.Status.STALLED, *[so.Status.CONVERGED] * 13]
    cells = table(dataclasses.replace(results()[1], statuses=statuses)._repr_html_())
    assert cells[cells.index("status") + 1] == "13 CONVERGED, 1 STALLED"
    cells = table(dataclasses.replace(r, method="<" * 1000)._repr_html_())
    assert cells[cells.index("method") + 1] == "<" * 117 + "..."


def test_a_name_in_a_table_is_escaped_too():
    @shown
    class Odd:
        def _shown(self):
            return {"<b>": 1}

    assert table(Odd()._repr_html_()) == ["Odd", "<b>", "1"]


def test_modules_say_their_settings():
    assert repr(adapters.CLOTLoss()) == "CLOTLoss(lamb=5, weight=1, temperature=0.5, tol=0.001)"
    assert repr(so.LabelBank(10, 3)) == "LabelBank(N=10, K=3, updates=0)"
    assert "temperature=0.1, eps=0.05, n_iter=3, assign=(0, 1)" in repr(so.SwAVLoss())
    assert repr(so.SwAVQueue(1000, 128)) == "SwAVQueue(length=1000, dim=128, held=0)"
