"""Every implementation of the primitive against the reference; the reference against formulas."""

import math

import pytest
import torch

from sinkhorn_ot import PointCloud, testing
from sinkhorn_ot.problem import Problem, make
from sinkhorn_ot.sweeps.portable.on_the_fly import OnTheFly
from sinkhorn_ot.sweeps.portable.shared_cost import SharedKernel
from sinkhorn_ot.sweeps.portable.stored import StoredKernel
from sinkhorn_ot.sweeps.reference import Reference


INF = math.inf
SHAPES = [(1, 1), (1, 7), (7, 1), (17, 65), (130, 9), (3, 300)]
RELAX = [None, (0.4, None), (None, 0.4), (0.0, None), (None, 0.0), (0.4, 2.0), (0.0, 0.0)]


def implementations(p: Problem) -> dict[str, tuple]:
    """Return each implementation that serves `p`, and the relative error that it may make."""
    found = {
        "streamed": (OnTheFly(p), 1e-12),
        "absorbed": (StoredKernel(p, torch.float64), 1e-12),
        "absorbed single": (StoredKernel(p, torch.float32), 2e-5),
    }
    span = (p.bounds.high - p.bounds.low) / float(p.reg[0])
    if p.shared and (p.reg == p.reg[0]).all():
        if span <= SharedKernel.SPAN[torch.float64]:
            found["shared"] = SharedKernel(p, torch.float64), 1e-12
        if span <= SharedKernel.SPAN[torch.float32]:
            found["shared single"] = SharedKernel(p, torch.float32), 2e-5
    return found


def problem(n: int, m: int, reg=0.1, *, batch=1, zeros=True, unbalanced=None, C=None, seed=0):
    """A batch of problems that share a cost unless `C` says otherwise."""
    drawn = [testing.random(n, m, zeros=zeros, seed=seed + k) for k in range(batch)]
    a, b = torch.stack([d.a for d in drawn]), torch.stack([d.b for d in drawn])
    return make(drawn[0].cost if C is None else C, a, b, reg, unbalanced)


def walk(p: Problem, steps: int = 4, stride: float = 1.0):
    """Yield potentials v of growing strangeness, zero weights at -inf."""
    generator = torch.Generator().manual_seed(1)
    log_b = p.b.log()
    yield log_b
    for k in range(steps):
        yield log_b + stride * (k + 1) * torch.randn(p.b.shape, generator=generator).double()


def assert_same(got, want, rtol, least=-INF):
    """Compare potentials: infinities must match, and what is finite up to its plan's error."""
    got, want = got.clamp(min=least), want.clamp(min=least)
    assert torch.equal(torch.isinf(got), torch.isinf(want))
    assert not torch.isnan(got).any()
    finite = torch.isfinite(want)
    # an error in a potential is a relative one in the plan
    slack = rtol + 1e-15 * want[finite].abs()
    assert ((got - want)[finite].abs() <= slack).all()


@pytest.mark.parametrize("far", [5.0, 20.0, 30.0])
@pytest.mark.parametrize("moved", [0.0, 8.0, 19.0])
def test_no_column_lacks_what_a_kernel_drops(far, moved):
    """Single precision cuts early: what is little there is summed again, or the kernel built."""
    p = problem(30, 40, zeros=False)
    sweep, generator = StoredKernel(p, torch.float32), torch.Generator().manual_seed(1)
    v = p.b.log() + far * torch.randn(1, 40, generator=generator).double()
    sweep.sweep(None, v)
    v = v + moved * (2 * torch.randint(0, 2, (1, 40), generator=generator) - 1)
    assert_same(sweep.sweep(None, v)[1], Reference(p).sweep(None, v)[1], 5e-6)


def check(p: Problem, stride: float = 1.0) -> None:
    reference = Reference(p)
    for name, (sweep, rtol) in implementations(p).items():
        u = None
        for v in walk(p, stride=stride):
            want_u, want_s = reference.sweep(u, v)
            u, s = sweep.sweep(u, v)
            try:
                assert_same(u, want_u, rtol + 10 * p.resolution)
                # what is left out of a stored kernel is nothing beside the mass
                assert_same(
                    s, want_s, 10 * rtol + 10 * p.resolution, least=-50 if rtol > 1e-9 else -600
                )
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None


def test_the_reference_is_the_formulas():
    p = problem(5, 7, zeros=False, unbalanced=(0.4, None))
    C, v = p.cost.rows(0, 5)[0], torch.randn(1, 7, dtype=torch.float64)
    reference = Reference(p)
    K = torch.exp(-C / 0.1)
    u, log_s = reference.sweep(None, v)
    kappa = 0.4 / 0.5
    torch.testing.assert_close(u[0].exp(), p.a[0] / (K @ v[0].exp()) ** kappa)
    P = u[0].exp()[:, None] * K * v[0].exp()[None, :]
    torch.testing.assert_close(log_s[0].exp(), P.sum(0))
    x = torch.randn(1, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(reference.apply(u, v, x)[0], P @ x[0])
    y = torch.randn(1, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(reference.apply(u, v, y, transpose=True)[0], P.T @ y[0])
    torch.testing.assert_close(reference.linear(u, v)[0], (P * C).sum())
    curve = P.T @ (P / P.sum(1, keepdim=True))
    torch.testing.assert_close(reference.curve(u, v)[0], curve)
    torch.testing.assert_close(reference.curve_product(u, v)(x[:, :, 0])[0], curve @ x[0, :, 0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_shapes_that_divide_nothing(shape, batch):
    check(problem(*shape, batch=batch))


@pytest.mark.parametrize("unbalanced", RELAX, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_relaxed_marginals(unbalanced, batch):
    check(problem(17, 23, batch=batch, unbalanced=unbalanced))


@pytest.mark.parametrize("reg", [1e-3, 1e-2, 1.0, 1e6])
def test_sharp_and_blunt(reg):
    check(problem(17, 23, reg, batch=2))
    check(problem(17, 23, reg))


def test_potentials_that_jump():
    """Moves beyond what a stored kernel can take: it must be built again."""
    check(problem(17, 23), stride=40.0)
    check(problem(17, 23, batch=3), stride=40.0)


@pytest.mark.parametrize("batch", [1, 3])
def test_sums_that_underflow_are_taken_again(batch):
    """A column so far from every row that its sum is no number float64 has, only a logarithm."""
    p = testing.random(17, 23)
    C = p.cost.clone()
    C[:, 4] += 300
    C[:, 9] += 90
    p = problem(17, 23, C=C, batch=batch, zeros=False)
    v = p.b.log()
    want_u, want_s = Reference(p).sweep(None, v)
    assert float(want_s.amin()) < -2900
    for sweep, rtol in implementations(p).values():
        # the second sweep finds whatever the first has stored
        for _ in range(2):
            u, s = sweep.sweep(None, v)
            assert_same(u, want_u, rtol)
            assert_same(s, want_s, 10 * rtol)


@pytest.mark.parametrize("reg", [0.1, 0.02])
@pytest.mark.parametrize("down", [60.0, 685.0, 695.0, 700.0, 705.0, 2000.0])
def test_row_sums_that_underflow_are_taken_again(down, reg):
    """All potentials fall so far that sums around the last ones lose digits, then are none."""
    p = problem(17, 23, reg)
    v = p.b.log()
    for sweep, rtol in implementations(p).values():
        u, s = sweep.sweep(None, v)
        moved_u, moved_s = sweep.sweep(u, v - down)
        assert_same(moved_u, u + down, rtol)
        assert_same(moved_s, s, rtol)


def test_forbidden_pairs():
    p = testing.random(17, 23)
    C = p.cost.masked_fill(
        torch.rand(17, 23, generator=torch.Generator().manual_seed(0)) < 0.6, INF
    )
    C[0], C[:, 0] = p.cost[0], p.cost[:, 0]
    check(problem(17, 23, C=C))
    check(problem(17, 23, C=C, batch=3))
    # relaxed, a row may have no partner at all
    C[3] = INF
    check(problem(17, 23, C=C, unbalanced=(0.5, 0.5)))


@pytest.mark.parametrize("far", [150.0, 900.0])
def test_parts_that_drift_apart_lose_nothing(far):
    """Where pairs are forbidden, nothing holds the potentials of two parts together."""
    C = testing.random(17, 23).cost.clone()
    C[:8, 10:] = C[8:, :10] = INF
    p = problem(17, 23, C=C, batch=3)
    v = p.b.log()
    v[:, 10:] -= far
    want_u, want_s = Reference(p).sweep(None, v)
    for name in ("streamed", "shared", "shared single"):
        sweep, rtol = implementations(p)[name]
        u, s = sweep.sweep(None, v)
        assert_same(u, want_u, rtol)
        assert_same(s, want_s, 10 * rtol)


def test_offsets_and_ranges():
    p = testing.random(17, 23)
    check(problem(17, 23, C=p.cost + 1e4, zeros=False))
    wide = p.cost * torch.logspace(-6, 3, 23, dtype=torch.float64)
    check(problem(17, 23, 0.05, C=wide))
    check(problem(17, 23, 0.05, C=wide, batch=2))
    check(problem(17, 23, 0.1, C=p.cost[:1].expand(17, 23)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(1, 1), (17, 65), (130, 9), (700, 500)])
def test_mild_kernels_have_one_base(shape, dtype):
    # an offset that a difference must take before a product
    C = 1000 + torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    p = make(C, reg=0.1)
    turned = make(C.mT.contiguous().mT, reg=0.1)
    for sweep in (StoredKernel(p, dtype), StoredKernel(turned, dtype)):
        for stride in (1.0, 20.0):
            for v in walk(p, stride=stride):
                want_u, want_s = Reference(p).sweep(None, v)
                u, s = sweep.sweep(None, v)
                slack = (1e-12 if dtype == torch.float64 else 3e-6) + 10 * p.resolution
                assert_same(u, want_u, slack)
                assert_same(s, want_s, 10 * slack, least=-50)


def test_a_cost_for_every_problem():
    C = torch.stack([testing.random(17, 23, seed=k).cost for k in range(4)])
    check(problem(17, 23, C=C, batch=4))
    reg = torch.tensor([0.03, 0.1, 0.5, 2.0])
    check(problem(17, 23, reg, C=C, batch=4))
    check(problem(17, 23, reg, batch=4))


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "dot", "cosine"])
def test_points(metric):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(k, 3, generator=generator).double() for k in (17, 23))
    check(problem(17, 23, 0.3, C=PointCloud(x, y, metric)))
    check(problem(17, 23, 0.3, C=PointCloud(x, y, metric), batch=3))


@pytest.mark.slow(1)
def test_more_rows_than_one_block():
    """Enough rows for several blocks of every implementation, the last one not full."""
    check(problem(701, 1003))
    check(problem(700, 1003, batch=2))


@pytest.mark.parametrize("batch", [1, 3])
def test_passes_over_the_plan(batch):
    p = problem(130, 9, batch=batch)
    reference = Reference(p)
    u, _ = reference.sweep(None, p.b.log())
    v = p.b.log()
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(batch, k, 2, generator=generator).double() for k in (9, 130))
    for name, (sweep, rtol) in implementations(p).items():
        sweep.sweep(None, v)
        same = {
            "rtol": 10 * rtol,
            "atol": 10 * rtol,
            "msg": lambda text, name=name: f"{name}: {text}",
        }
        torch.testing.assert_close(sweep.apply(u, v, x), reference.apply(u, v, x), **same)
        wanted = reference.apply(u, v, y, True)
        torch.testing.assert_close(sweep.apply(u, v, y, True), wanted, **same)
        torch.testing.assert_close(sweep.linear(u, v), reference.linear(u, v), **same)
        torch.testing.assert_close(sweep.log_sum_rows(v), reference.log_sum_rows(v), **same)
        torch.testing.assert_close(sweep.log_sum_columns(u), reference.log_sum_columns(u), **same)
        torch.testing.assert_close(sweep.curve(u, v), reference.curve(u, v), **same)
        torch.testing.assert_close(
            sweep.curve_product(u, v)(x[:, :, 0]), reference.curve_product(u, v)(x[:, :, 0]), **same
        )


def test_selection_and_another_reg():
    """A chosen part of the batch, and the whole at another reg, go on as if posed so."""
    p = problem(17, 23, batch=5)
    for sweep, rtol in implementations(p).values():
        v = p.b.log()
        sweep.sweep(None, v)
        for new in (sweep.at(p.reg * 3), sweep.at(p.reg).select(torch.tensor([0, 2, 4]))):
            at = slice(None) if new.problem.shape[0] == 5 else slice(None, None, 2)
            u, s = new.sweep(None, v[at])
            want_u, want_s = Reference(new.problem).sweep(None, v[at])
            assert_same(u, want_u, rtol)
            assert_same(s, want_s, 10 * rtol)


def test_selection_keeps_a_built_kernel():
    C = torch.stack([testing.random(17, 23, seed=k).cost for k in range(6)])
    p = problem(17, 23, C=C, batch=6)
    sweep, v = StoredKernel(p, torch.float64), p.b.log()
    sweep.sweep(None, v)
    index = torch.tensor([1, 2, 5])
    kept = sweep.select(index)
    u, s = kept.sweep(None, v[index])
    want_u, want_s = Reference(p.select(index)).sweep(None, v[index])
    assert_same(u, want_u, 1e-12)
    assert_same(s, want_s, 1e-11)
