"""Sweeps over the tiles that count: the reference's, and nothing is left out that was not told."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sinkhorn_ot.problem import PointCloud, Problem, make
from sinkhorn_ot.problem.penalties import TV
from sinkhorn_ot.solvers import Sinkhorn
from sinkhorn_ot.sweeps.portable import by_sorts
from sinkhorn_ot.sweeps.portable.near.bounds import Affine, most
from sinkhorn_ot.sweeps.portable.near.tree import Blocks
from sinkhorn_ot.sweeps.reference import Reference


gpu = pytest.importorskip("sinkhorn_ot.sweeps.gpu", reason="triton is not installed")
near = pytest.importorskip("sinkhorn_ot.sweeps.gpu.near")
LOST = math.log(1e-8)
SINGLE, DOUBLE = torch.float32, torch.float64
# the interpreter takes its time
pytestmark = pytest.mark.slow(1)


def cloud(n: int, d: int) -> Tensor:
    """Points that a double and the kernels' formats hold."""
    return (torch.rand(n, d) * 256).round().double() / 256


def problem(
    n: int = 44,
    m: int = 35,
    d: int = 2,
    reg: float = 1e-3,
    y: Tensor | None = None,
    holes: bool = False,
    **how: object,
) -> Problem:
    a, b = torch.rand(n).double() + 0.1, torch.rand(m).double() + 0.1
    if holes:
        a[::3], b[1::4] = 0, 0
    cost = PointCloud(cloud(n, d), cloud(m, d) if y is None else y)
    return make(cost, a / a.sum(), b / b.sum(), reg, **how)


def swept(p: Problem, work: torch.dtype = SINGLE, size: int = 16) -> "near.NearKernels":
    single = replace(p, a=p.a.to(work), b=p.b.to(work), reg=p.reg.to(work))
    return near.NearKernels.of_clouds(single, LOST, size)


def same(got: Tensor, want: Tensor, digits: float | None = None) -> None:
    digits = digits or (3e-5 if got.dtype == SINGLE else 1e-8)
    assert torch.equal(got.isinf(), want.isinf())
    torch.testing.assert_close(got.double(), want, atol=digits, rtol=digits)


def follow(p: Problem, sweep: "near.NearKernels", v: Tensor, sweeps: int = 2) -> Tensor:
    """Sweep beside the reference, with plain steps between, and return the last potential."""
    truth, work, u = Reference(p), sweep.problem.work, None
    for _ in range(sweeps):
        want_u, want_s = truth.sweep(u, v)
        got_u, got_s = sweep.sweep(None if u is None else u.to(work), v.to(work))
        same(got_u, want_u)
        same(got_s, want_s)
        assert 0 <= sweep.dropped <= math.exp(LOST)
        u, v = want_u, torch.where(p.b > 0, v + p.b.log() - want_s, -math.inf)
    return v


def share(sweep: "near.NearKernels", v: Tensor) -> float:
    """Return the share of pairs of blocks that count for rows, where their sums are known."""
    live = sweep.live(0, sweep.taken(1, v.to(sweep.problem.work)), sweep._sums[0])
    return float(live.counts.sum()) / live.blocks.numel()


@pytest.mark.parametrize(
    ("d", "work", "how"),
    [
        (1, SINGLE, {"n": 44, "reg": 1e-4}),
        (2, DOUBLE, {"n": 17, "m": 50}),
        (3, SINGLE, {"holes": True}),
        (2, SINGLE, {"holes": True, "unbalanced": (0.5, 0.7), "reg": 1e-4}),
        (2, DOUBLE, {"unbalanced": (0, None), "reg": 1e-4}),
        (8, SINGLE, {"n": 18, "reg": 1e-2}),
    ],
)
def test_a_sweep_is_the_references(d, work, how):
    p = problem(d=d, **how)
    sweep = swept(p, work)
    v = follow(p, sweep, p.b.log(), 1)
    assert d > 2 or share(sweep, p.b.log()) < 1, "nothing was left out"
    follow(p, sweep, v, 1)


def test_points_that_coincide_and_blocks_that_are_points():
    p = problem(30, 30, 2)
    x = p.cost.x.clone()
    x[:, ::2] = x[:, :1]
    p = replace(p, cost=PointCloud(x, x))
    follow(p, swept(p), p.b.log())


def test_points_in_half_precision():
    p = problem()
    x, y = p.cost.x.half(), p.cost.y.half()
    p = replace(p, cost=PointCloud(x, y))
    follow(p, swept(p), p.b.log(), 1)


def test_potentials_far_from_what_they_were():
    """Sums that fell by more than is allowed for are taken over all columns."""
    jitter = 2e-3 * torch.rand(48, 1).double()
    x, y = 0.45 + jitter[:16], torch.cat((jitter[16:32], 1 + jitter[32:]))
    # what the second half of the columns carries is e^-40 of a row
    p = make(PointCloud(x, y), None, None, 2.5e-3)
    sweep, first = swept(p, DOUBLE), torch.arange(32) < 16
    follow(p, sweep, p.b.log(), 1)
    assert share(sweep, p.b.log()) == 0.5, "nothing was left out"
    # and e^-18 of what is left, which is more than was to be lost, then all of it
    for fall in (22.0, 200.0):
        v = torch.where(first, p.b.log() - fall, p.b.log())
        same(sweep.sweep(None, v)[0], Reference(p).sweep(None, v)[0], 1e-11)
    follow(p, sweep, p.b.log(), 1)


def test_a_column_that_no_row_is_near_has_its_sum():
    p = problem()
    y = p.cost.y.clone()
    y[:, :3] += 5.0
    p = replace(p, cost=PointCloud(p.cost.x, y))
    _, log_s = swept(p).sweep(None, p.b.log().to(SINGLE))
    want = Reference(p).sweep(None, p.b.log())[1]
    assert want.min() < -1000
    same(log_s, want, 1e-5)


@pytest.mark.filterwarnings("ignore:All-NaN")
def test_what_is_no_number_is_not_hidden():
    p = problem()
    v = p.b.log().to(SINGLE)
    v[0, 7] = math.nan
    assert swept(p).sweep(None, v)[0].isnan().all()
    v[:] = -math.inf
    assert (swept(p).log_sum_rows(v) == -math.inf).all()


def test_penalties_that_no_kernel_knows():
    p = problem(unbalanced=(TV(0.3), None))
    follow(p, swept(p, DOUBLE), p.b.log(), 1)


@pytest.mark.parametrize("work", [SINGLE, DOUBLE])
def test_passes_are_the_references(work):
    p = problem(holes=True)
    truth, ours = Reference(p), swept(p, work)
    v = p.b.log()
    u, _ = truth.sweep(None, v)
    x, y = torch.randn(1, 35, 7).double(), torch.randn(1, 44, 1).double()
    for act in (
        lambda s, c: s.log_sum_rows(c(v)),
        lambda s, c: s.log_sum_columns(c(u)),
        lambda s, c: s.apply(c(u), c(v), c(x)),
        lambda s, c: s.apply(c(u), c(v), c(y), transpose=True),
        lambda s, c: s.linear(c(u), c(v)),
        lambda s, c: s.curve_product(c(u), c(v))(c(x)[:, :, 0]),
    ):
        want, got = act(truth, lambda t: t), act(ours, lambda t: t.to(work))
        same(got, want, 2e-4 if work == SINGLE else 1e-7)
        assert 0 <= ours.dropped <= math.exp(LOST)
    turned = ours.of(ours.problem.transposed())
    same(turned.log_sum_rows(u.to(work)), truth.log_sum_columns(u))


def test_what_is_not_listed_is_below_what_was_told():
    p = problem(60, 60, 2)
    sweep, v = swept(p, DOUBLE), p.b.log() + 0.5 * torch.randn(1, 60).double()
    t = sweep.taken(1, v)
    sums, least, live = sweep._summed(0, t, None)
    assert (least <= sums).all()
    C = Reference(p).problem.cost.rows(0, 60)[0]
    rows, columns = (tree.boxes.order for tree in sweep.trees)
    z = (t.values - C[rows][:, columns] / float(p.reg) - sums[:, None]).exp()
    left = z.clone()
    for k, (count, listed) in enumerate(
        zip(live.counts.tolist(), live.blocks.tolist(), strict=True)
    ):
        for block in listed[:count]:
            left[16 * k : 16 * k + 16, 16 * block : 16 * block + 16] = 0
        lost = left[16 * k : 16 * k + 16].sum(1).max()
        assert lost <= live.cut[k].exp() <= math.exp(LOST)
    assert left.any(), "nothing was left out"
    torch.testing.assert_close((z - left).sum(1), torch.ones(60).double(), atol=1e-12, rtol=0)


def boxed(k: int, d: int) -> "tuple[near.Boxes, near.near.Affine, Blocks, Affine]":
    """Return blocks with functions, as the kernels take them and as the portable code does."""
    low = torch.rand(k, d).double()
    high, slope, level = low + 0.3 * torch.rand(k, d), torch.randn(k, d), torch.randn(k)
    slope, level, none = 9 * slope.double(), 9 * level.double(), torch.empty(0)
    boxes = near.Boxes(none, low.mT.contiguous(), high.mT.contiguous(), k, 4)
    block = Blocks(none, none, none, none, low, high, none)
    return boxes, near.near.Affine(level, slope.mT.contiguous()), block, Affine(level, slope)


def listed(live: "near.Live") -> list[set[int]]:
    counts = live.counts.tolist()
    return [set(row[:count]) for row, count in zip(live.blocks.tolist(), counts, strict=True)]


@pytest.mark.parametrize("lost", [-20.0, 10.0])
def test_the_device_judges_as_the_portable_code(lost):
    (rows, u, mine, f), (columns, v, other, g) = boxed(5, 2), boxed(150, 2)
    live = near.near.judge((rows, u), (columns, v), torch.tensor([4.0]).double(), lost, 1.0)
    z = most(mine, f, other, g, 0.25) + math.log(4)
    for row, found, cut in zip(z, listed(live), live.cut, strict=True):
        aim = lost - 1.0
        bars = (aim - 3.0, aim - math.log(150))
        left = [row[row <= bar].logsumexp(0) for bar in bars]
        k = int(left[0] > aim)
        assert found == set((row > bars[k]).nonzero()[:, 0].tolist())
        torch.testing.assert_close(cut, left[k])
        assert cut <= aim


def test_many_tiles_below_the_first_bar_are_judged_again():
    (rows, u, *_), (columns, v, *_) = boxed(1, 1), boxed(150, 1)
    for t in (rows.low, rows.high, columns.low, columns.high, u.slope, v.slope, u.level):
        t.zero_()
    # each alone is e^-4 of what may be lost
    v.level.fill_(-10.0 - 4.0 - math.log(4))
    live = near.near.judge((rows, u), (columns, v), torch.ones(1).double(), -10.0)
    assert listed(live) == [set(range(150))]
    v.level[5:] -= 100
    assert listed(near.near.judge((rows, u), (columns, v), torch.ones(1).double(), -10.0)) == [
        set()
    ]


def test_fewer_points_begin(monkeypatch):
    monkeypatch.setattr(near, "_MANY", 10)
    p = problem(70, 50, 2, holes=True)
    start = swept(p, DOUBLE).coarser()
    few = start.sweep.problem
    assert few.a.shape == (1, 5)
    assert few.b.shape == (1, 4)
    torch.testing.assert_close(few.a.sum(), p.a.sum())
    torch.testing.assert_close((few.a[0, :, None] * few.cost.x[0]).sum(0), _moment(p))
    assert start.factor > 1
    psi = torch.randn(1, 4).double()
    got = start.extend(psi)
    # the potential that answers the fewer rows, at every column
    u, _ = Reference(few).sweep(None, psi + few.b.log())
    y = p.cost.placed[1] - _shift(p)
    C = (few.cost.x[0, :, None] - y[0]).square().sum(-1)
    want = -torch.logsumexp(u[0, :, None] - C / few.reg, 0)
    torch.testing.assert_close(got[0], want)


def _shift(p: Problem) -> Tensor:
    """Return where the kernels have the origin, in the coordinates in which costs are made."""
    return (p.cost.placed[0].mean((0, 1)) + p.cost.placed[1].mean((0, 1))) / 2


def _moment(p: Problem) -> Tensor:
    return (p.a[0, :, None] * (p.cost.placed[0][0] - _shift(p))).sum(0)


@pytest.mark.slow(3)
def test_the_loop_solves_on_it(monkeypatch):
    monkeypatch.setattr(near, "_MANY", 10)
    p = problem(16, 16, 1, 0.03)
    found = Sinkhorn(check_every=2)(swept(p, DOUBLE, 8), tol=1e-2, max_iter=20)
    mass = Reference(p).apply(found.u, found.v, torch.ones_like(p.b)[..., None])[..., 0]
    assert found.status[0].name == "CONVERGED"
    assert (mass - p.a).abs().sum() < 2e-2


@pytest.mark.parametrize(("n", "size", "d"), [(100, 16, 2), (1, 4, 3), (65, 16, 1), (50, 7, 2)])
def test_sorts_make_blocks_of_neighbours(n, size, d):
    x = torch.rand(n, d)
    order = by_sorts(x, size)
    assert sorted(order.tolist()) == list(range(n))
    blocks = x[order].split(size)
    boxes = sum(float((t.amax(0) - t.amin(0)).prod()) for t in blocks)
    # they hardly meet
    assert boxes < 1.01
    if d == 1:
        ends = sorted((float(t.amin()), float(t.amax())) for t in blocks)
        assert all(end <= start for (_, end), (start, _) in zip(ends, ends[1:], strict=False))


@pytest.mark.parametrize(
    ("n", "d", "reg", "metric", "chosen"),
    [
        (25000, 2, 1e-4, "sqeuclidean", True),
        (25000, 3, 1e-3, "sqeuclidean", True),
        (25000, 2, 0.1, "sqeuclidean", False),
        (25000, 2, 1e-4, "euclidean", False),
        (25000, 9, 1e-4, "sqeuclidean", False),
        (20000, 2, 1e-4, "sqeuclidean", False),
    ],
)
def test_it_is_chosen_where_few_tiles_count(n, d, reg, metric, chosen):
    x = torch.rand(n, d)
    p = make(PointCloud(x, x, metric), None, None, reg)
    assert gpu.choice.near(p) is chosen
