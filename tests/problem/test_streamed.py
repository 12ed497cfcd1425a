"""Costs that are read at every pass: the same answers as in memory, and nothing held."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot.problem import make
from sinkhorn_ot.sweeps.portable.on_the_fly import OnTheFly as Sweep
from sinkhorn_ot.sweeps.portable.stored import StoredKernel
from sinkhorn_ot.sweeps.reference import Reference


def cost(n: int = 65, m: int = 17, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(n, m, generator=torch.Generator().manual_seed(0), dtype=dtype)


def shuffled(C: Tensor, size: int):
    """A loader that gives the rows in another order at every pass."""
    passes = iter(range(1000))

    def read():
        order = torch.randperm(len(C), generator=torch.Generator().manual_seed(next(passes)))
        for part in order.split(size):
            yield part, C[part]

    return read


SOURCES = {
    "array": lambda C: C.numpy(),
    "tensor": lambda C: C,
    "list": lambda C: list(C.split(7)),
    "one block": lambda C: [C],
    "empty blocks": lambda C: [C[:0], C[:3], C[3:3], C[3:]],
    "arrays": lambda C: [part.numpy() for part in C.split(7)],
    "function": lambda C: lambda: iter(C.split(7)),
    "numbered": lambda C: shuffled(C, 9),
    "loader": lambda C: torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.arange(len(C)), C), batch_size=8, shuffle=True
    ),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("reg", [0.3, 0.01])
def test_solves_as_in_memory(name, reg):
    C = cost()
    r, want = so.solve(so.Streamed(SOURCES[name](C)), reg=reg), so.solve(C, reg=reg)
    assert bool(r.converged)
    for ours, theirs in ((r.plan, want.plan), (r.g, want.g), (r.value, want.value)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)
    assert float(r.certificate().gap) == pytest.approx(float(want.certificate().gap), abs=1e-8)


@pytest.mark.parametrize("name", SOURCES)
def test_the_primitive_is_the_reference(name):
    C, g = cost(), torch.Generator().manual_seed(1)
    b = torch.rand(17, generator=g, dtype=torch.float64)
    b[3] = 0
    p = make(so.Streamed(SOURCES[name](C)), None, b / b.sum(), 0.05)
    x, y = torch.rand(1, 17, 3).double(), torch.rand(1, 65, 3).double()
    reference = Reference(make(C, None, b / b.sum(), 0.05))
    for sweep in (Sweep(p), StoredKernel(p, torch.float64)):
        u = None
        for _ in range(3):
            v = p.b.log() + torch.randn(1, 17, generator=g).double()
            u, s = sweep.sweep(u, v)
            want_u, want_s = reference.sweep(u, v)
            pairs = [
                (u, want_u),
                (s, want_s),
                (sweep.curve(u, v), reference.curve(u, v)),
                (sweep.curve_product(u, v)(x[:, :, 0]), reference.curve_product(u, v)(x[:, :, 0])),
                (sweep.apply(u, v, x), reference.apply(u, v, x)),
                (sweep.apply(u, v, y, transpose=True), reference.apply(u, v, y, transpose=True)),
                (sweep.log_sum_rows(v), reference.log_sum_rows(v)),
                (sweep.log_sum_columns(u), reference.log_sum_columns(u)),
                (sweep.linear(u, v), reference.linear(u, v)),
                (sweep.total(u), reference.total(u)),
            ]
            for ours, want in pairs:
                torch.testing.assert_close(ours, want, rtol=1e-12, atol=1e-12)


def test_batches_of_costs():
    C = torch.stack([cost(), 2 * cost(), cost() ** 2])
    blocks = [C[:, :30], C[:, 30:]]
    r, want = so.solve(so.Streamed(blocks), reg=0.02), so.solve(C, reg=0.02)
    torch.testing.assert_close(r.plan, want.plan, rtol=0, atol=1e-8)


def test_one_cost_for_many_marginals():
    b = torch.rand(4, 17).double()
    b = b / b.sum(-1, keepdim=True)
    r, want = so.solve(so.Streamed([cost()]), b=b, reg=0.1), so.solve(cost(), b=b, reg=0.1)
    torch.testing.assert_close(r.plan, want.plan, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_numbered_rows_of_one_cost_for_many_regs(dtype):
    C = cost(dtype=dtype)
    a = torch.full((2, len(C)), 1 / len(C), dtype=torch.float64)
    reg = torch.tensor([0.3, 0.1])
    r, want = (so.solve(c, a, reg=reg) for c in (so.Streamed(shuffled(C, 9)), C))
    assert r.converged.all()
    torch.testing.assert_close(r.plan, want.plan, rtol=0, atol=1e-7)


def test_more_columns_than_rows_are_not_turned():
    r, want = so.solve(so.Streamed([cost(5, 60)]), reg=0.1), so.solve(cost(5, 60), reg=0.1)
    torch.testing.assert_close(r.plan, want.plan, rtol=0, atol=1e-8)


def test_forbidden_pairs():
    C = cost()
    C[:20, 4] = math.inf
    r, want = so.solve(so.Streamed(list(C.split(10))), reg=0.1), so.solve(C, reg=0.1)
    torch.testing.assert_close(r.plan, want.plan, rtol=0, atol=1e-8)
    C[7] = math.inf
    with pytest.raises(ValueError, match="row 7 has positive a but only infinite costs"):
        so.solve(so.Streamed(list(C.split(5))), reg=0.1)


def test_a_block_may_forbid_all_its_pairs():
    C = cost()
    C[20:30] = math.inf
    a = torch.ones(len(C), dtype=torch.float64)
    a[20:30] = 0
    source = so.Streamed(list(C.split(10)))
    assert source.facts.bounds == so.Dense(C).validate()
    for a_given, options in ((a / a.sum(), {}), (None, {"unbalanced": 1.0})):
        r, want = (so.solve(c, a_given, reg=0.1, **options) for c in (source, C))
        torch.testing.assert_close(r.plan, want.plan, rtol=0, atol=1e-8)
    with pytest.raises(ValueError, match="source must allow some pair, got inf everywhere"):
        so.Streamed([torch.full((2, 3), math.inf)] * 2)


class Watched(np.memmap):
    """A memory map that remembers how much was asked of it at once."""

    most = 0

    def __getitem__(self, at):
        part = super().__getitem__(at)
        Watched.most = max(Watched.most, part.size)
        return part


def test_a_memory_map_is_read_and_never_loaded(tmp_path, monkeypatch):
    n, m = 200_000, 32
    C = np.memmap(tmp_path / "C", np.float32, "w+", shape=(n, m))
    C[:] = cost(n, m, torch.float32).numpy()
    C.flush()
    # as if it had too many entries for a kernel to be held
    monkeypatch.setattr("sinkhorn_ot.problem.costs.streamed.MEMORY", 0)
    tracemalloc.start()
    r = so.solve(so.Streamed(Watched(tmp_path / "C", np.float32, "r", shape=(n, m))), reg=0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bool(r.converged)
    assert Watched.most <= 1 << 19
    assert peak < n * m * 4 / 3


def test_every_pass_reads_every_row_once():
    C, reads = cost(), []

    def read():
        reads.append(0)
        for part in C.split(10):
            reads[-1] += len(part)
            yield part

    sweep = Sweep(make(so.Streamed(read), None, None, 0.1))
    before = len(reads)
    sweep.sweep(None, sweep.problem.b.log())
    assert len(reads) == before + 1
    assert set(reads) == {len(C)}


class Fading:
    """Blocks that are one fewer at every pass."""

    def __init__(self) -> None:
        self.left = 6

    def __iter__(self):
        self.left -= 1
        return iter(cost().split(13)[: self.left])


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (lambda: [cost(65, 16)], "65 of width 17, a later one has 10 of width 16"),
        (lambda: [cost(40), cost(30)], "65 of width 17, a later one has more of width 17"),
        (lambda: [cost(64)], "65 of width 17, a later one has 64 of width 17"),
    ],
    ids=["width", "more", "fewer"],
)
def test_a_later_pass_with_other_rows_is_told_before_they_are_used(later, message):
    passes = iter([[cost()], later()])
    C, seen = so.Streamed(lambda: next(passes)), []
    with pytest.raises(ValueError, match=message):
        seen.extend(block.shape for _, block in C.tiles(10))
    assert sum(rows for *_, rows, _ in seen) <= 65
    assert {width for *_, width in seen} <= {17}


def spoiled(value: float) -> list[Tensor]:
    C = cost()
    C[23, 5] = value
    return list(C.split(10))


BAD = {
    "generator": (
        lambda: so.Streamed(part for part in cost().split(9)),
        "source must be read several times, and a generator can be only once",
    ),
    "nan": (lambda: so.Streamed(spoiled(math.nan)), r"above -inf, got nan at index \(23, 5\)"),
    "-inf": (lambda: so.Streamed(spoiled(-math.inf)), r"got -inf at index \(23, 5\)"),
    "nothing": (lambda: so.Streamed([]), "source must hold rows, got no block"),
    "no rows": (
        lambda: so.solve(so.Streamed([cost()[:0]]), reg=0.1),
        r"cost must not be empty, got shape \(0, 17\)",
    ),
    "no columns": (lambda: so.Streamed([cost()[:, :0]]), r"must not be empty, got shape \(65, 0\)"),
    "number": (lambda: so.Streamed(3), "must be a tensor, an array or blocks of rows, got int"),
    "vectors": (lambda: so.Streamed([torch.ones(3)]), r"blocks of shape \(..., rows, k\), got"),
    "widths": (lambda: so.Streamed([cost(), cost(5, 3)]), "must have blocks of one kind"),
    "triple": (lambda: so.Streamed([(1, 2, 3)]), r"pairs \(numbers, block\), got 3 parts"),
    "numbers": (
        lambda: so.Streamed([(torch.arange(3), cost())]),
        r"must number the 65 rows of a block by whole numbers, got int64 of shape \(3,\)",
    ),
    "twice": (
        lambda: so.Streamed([(torch.zeros(65).long(), cost())]),
        "must number every row once: row 1 is missing",
    ),
    "one twice": (
        lambda: so.Streamed([(torch.arange(65).clamp(max=63), cost())]),
        "must number every row once: row 64 is missing",
    ),
    "too far": (lambda: so.Streamed([(torch.arange(65) + 1, cost())]), "from 0 to 64, got 65"),
    "half numbered": (
        lambda: so.Streamed([cost(), (torch.arange(65), cost())]),
        "must number all of its rows or none",
    ),
    "other rows": (
        lambda: so.solve(so.Streamed(Fading()), reg=0.1),
        "source must give the same rows at every pass: the first had 65 .* a later one has 52",
    ),
    "transposed": (lambda: so.Streamed([cost()]).transposed(), "cannot be transposed"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
