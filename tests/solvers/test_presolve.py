"""Problems solved without their points of no weight: nothing but the time may tell."""

import math

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.problem import make
from sinkhorn_ot.solvers.automatic import SWEEPS
from sinkhorn_ot.solvers.presolve import support
from sinkhorn_ot.sweeps.choice import choose


SHAPES = [(40, 60), (60, 40), (90, 7), (7, 90)]
METRICS = ["sqeuclidean", "euclidean", "dot", "cosine"]


def sparse(n: int, m: int, reg: float = 0.05, some: float = 0.5) -> testing.Random:
    """Return a problem with every so many weights zero, the first never."""
    p = testing.random(n, m, reg, seed=2)
    generator = torch.Generator().manual_seed(4)
    weights = []
    for w in (p.a, p.b):
        keep = torch.rand(len(w), generator=generator) > some
        keep[0] = True
        weights.append(torch.where(keep, w, 0.0) / w[keep].sum())
    return testing.Random(p.cost, weights[0], weights[1], reg)


def cloud(metric: str) -> so.PointCloud:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 3, generator=rng), torch.randn(60, 3, generator=rng) + 1
    return so.PointCloud(x.double(), y.double(), metric)


@pytest.mark.parametrize("method", ["auto", "sinkhorn", "newton"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_plan_is_that_of_the_whole_problem(shape, method):
    p = sparse(*shape)
    whole = make(p.cost, p.a, p.b, p.reg)
    assert support(whole) is not None
    s = SWEEPS(choose(whole, 1e-13), tol=1e-13, max_iter=10_000)
    plan = (s.u[0, :, None] + s.v[0] - p.cost / p.reg).exp()
    r = so.solve(p.cost, p.a, p.b, p.reg, method=method, tol=1e-13)
    assert r.converged
    torch.testing.assert_close(r.plan, plan, atol=1e-12, rtol=0)
    assert (r.plan[p.a == 0] == 0).all()
    assert (r.plan[:, p.b == 0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("turned", [False, True])
def test_it_is_the_problem_that_one_would_strip_by_hand(dtype, turned):
    p = sparse(40, 60)
    C = p.cost.to(dtype)
    C = C.t().contiguous().t() if turned else C
    at = torch.meshgrid(p.a.nonzero()[:, 0], p.b.nonzero()[:, 0], indexing="ij")
    told, known = [], []
    r = so.solve(C, p.a, p.b, p.reg, callback=told.append)
    by_hand = C[at], p.a[p.a > 0], p.b[p.b > 0]
    truth = so.solve(*by_hand, p.reg, callback=known.append)
    torch.testing.assert_close(r.plan[at], truth.plan, atol=1e-13, rtol=0)
    assert [t.n_iter for t in told] == [t.n_iter for t in known]
    assert r.n_iter == truth.n_iter


@pytest.mark.parametrize("metric", METRICS)
def test_points(metric):
    p, C = sparse(40, 60, some=0.2), cloud(metric)
    assert support(make(C, p.a, p.b, 0.3)) is not None
    dense = torch.cat([rows for _, rows in C.flat(torch.Size()).tiles(7)], 1)[0]
    r = so.solve(C, p.a, p.b, 0.3, tol=1e-12)
    truth = testing.judge(dense, p.a, p.b, 0.3)
    torch.testing.assert_close(r.plan, truth.plan, atol=1e-11, rtol=0)


def test_points_without_weight_have_the_potentials_that_answer():
    p = sparse(30, 50)
    C = p.cost.clone()
    empty_row, empty_column = (w.eq(0).nonzero()[:2, 0] for w in (p.a, p.b))
    C[empty_row[0]], C[:, empty_column[0]] = math.inf, math.inf
    r = so.solve(C, p.a, p.b, p.reg, tol=1e-12)
    i, j = empty_row[1], empty_column[1]
    f = -p.reg * torch.logsumexp((r.g - C[i]) / p.reg + p.b.log(), 0)
    g = -p.reg * torch.logsumexp((r.f - C[:, j]) / p.reg + p.a.log(), 0)
    assert float(r.f[i]) == pytest.approx(float(f), abs=1e-12)
    assert float(r.g[j]) == pytest.approx(float(g), abs=1e-12)
    assert torch.isfinite(r.f).all()
    assert torch.isfinite(r.g).all()
    c = r.certificate()
    assert (c.f[:, None] + c.g <= C).all()
    assert float(c.lower) <= float(c.upper)


def test_bounds_are_those_of_the_pairs_that_are_left():
    p = sparse(30, 50)
    C = p.cost.clone()
    C[p.a == 0] = 5.0
    C[:, p.b == 0] = math.inf
    fewer = support(make(C, p.a, p.b, p.reg))
    assert fewer is not None
    left = C[p.a > 0][:, p.b > 0]
    assert fewer.problem.bounds == (float(left.min()), float(left.max()), False)
    C[0, fewer.columns[1]] = math.inf
    fewer = support(make(C, p.a, p.b, p.reg))
    assert fewer is not None
    assert fewer.problem.bounds.forbids
    r = so.solve(C, p.a, p.b, p.reg, tol=1e-12)
    truth = testing.judge(C, p.a, p.b, p.reg)
    torch.testing.assert_close(r.plan, truth.plan, atol=1e-11, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_warm_start_is_there_already(shape):
    p = sparse(*shape)
    r = so.solve(p.cost, p.a, p.b, p.reg, tol=1e-12)
    for init in (r, (r.f, None), (None, r.g)):
        again = so.solve(p.cost, p.a, p.b, p.reg, tol=1e-10, init=init)
        assert again.n_iter <= 2
        torch.testing.assert_close(again.plan, r.plan, atol=1e-11, rtol=0)


@pytest.mark.parametrize("method", ["auto", "sinkhorn", "newton"])
def test_a_batch_starts_where_it_ended(method):
    drawn = [testing.random(9, 7, seed=k) for k in range(3)]
    C, a, b = (torch.stack([getattr(p, name) for p in drawn]) for name in ("cost", "a", "b"))
    r = so.solve(C, a, b, 0.05, tol=1e-12, method=method)
    far = 1e6 * torch.tensor([[1.0], [-3.0], [2.0]]).double()
    for init in (r, (None, r.g), (None, r.g + far)):
        again = so.solve(C, a, b, 0.05, tol=1e-8, method=method, init=init)
        assert int(again.n_iter.max()) <= 3 < int(r.n_iter.min())
        torch.testing.assert_close(again.plan, r.plan, atol=1e-8, rtol=0)


@pytest.mark.parametrize(("rows", "columns"), [(1, 9), (9, 1), (1, 1)])
def test_one_point_left(rows, columns):
    p = testing.random(12, 15)
    a, b = (
        torch.where(torch.arange(len(w)) % len(w) < k, w, 0.0)
        for w, k in ((p.a, rows), (p.b, columns))
    )
    a, b = a / a.sum(), b / b.sum()
    r = so.solve(p.cost, a, b, 0.01)
    torch.testing.assert_close(r.plan, a[:, None] * b)
    assert torch.isfinite(r.f).all()
    assert torch.isfinite(r.g).all()


def test_others_stay_as_they_are():
    p, few = sparse(40, 60), sparse(40, 60, some=0.02)
    blocks = so.Streamed(p.cost)
    assert support(make(cloud("dot"), few.a, few.b, 0.1)) is not None
    assert support(make(p.cost, p.a, p.b, 0.1, unbalanced=(1.0, 0))) is None
    assert support(make(p.cost, p.a, p.b, 0.1, unbalanced=1.0)) is not None
    assert support(make(torch.stack([p.cost] * 2), p.a, p.b, 0.1)) is None
    assert support(make(blocks, p.a, p.b, 0.1)) is None
    many = sparse(600, 600, some=0.02)
    assert support(make(many.cost, many.a, many.b, 0.1)) is None
    assert support(make(few.cost, few.a, few.b, 0.1)) is not None
