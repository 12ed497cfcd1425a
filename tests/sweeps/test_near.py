"""Sweeps that look at near points only, against the reference."""

import math
from dataclasses import replace

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import PointCloud
from sinkhorn_ot.problem import Problem, make
from sinkhorn_ot.solvers import NEWTON, suitable
from sinkhorn_ot.sweeps import choice, choose, least_rows
from sinkhorn_ot.sweeps.portable import OnTheFly
from sinkhorn_ot.sweeps.portable.near import Near
from sinkhorn_ot.sweeps.portable.near.bounds import above, most
from sinkhorn_ot.sweeps.portable.near.tree import blocks
from sinkhorn_ot.sweeps.reference import Reference


LOST = math.log(1e-11)


def problem(
    n: int, m: int, d: int = 2, reg: float = 1e-3, unbalanced=None, zeros=True, **more
) -> Problem:
    x, y = torch.rand(n, d).double(), torch.rand(m, d).double() ** 2
    a, b = torch.rand(n).double() + 0.1, torch.rand(m).double() + 0.1
    if zeros and min(n, m) > 9:
        a[3:9], b[-1] = 0, 0
    return make(PointCloud(x, y, **more), a / a.sum(), b / b.sum(), reg, unbalanced)


def settled(p: Problem, sweeps: int = 5) -> torch.Tensor:
    """Column potentials some plain steps from the start."""
    reference, v = Reference(p), p.b.log()
    for _ in range(sweeps):
        v = (v + p.b.log() - reference.sweep(None, v)[1]).masked_fill(p.b == 0, -math.inf)
    return v


def assert_same(got, want, atol=1e-9):
    assert torch.equal(torch.isinf(got), torch.isinf(want))
    torch.testing.assert_close(got, want, atol=atol, rtol=1e-11)


def check(p: Problem, potentials) -> None:
    near, reference = Near(p, LOST), Reference(p)
    u = None
    for v in potentials:
        want_u, want_s = reference.sweep(None, v)
        u, s = near.sweep(u, v)
        assert_same(u, want_u)
        # a column has lost a small part of all mass
        mass = want_s.exp().sum()
        assert (s.exp() - want_s.exp()).abs().sum() <= 1e-9 * mass
        assert_same(near.log_sum_rows(v), reference.log_sum_rows(v))
        assert_same(near.log_sum_columns(u), reference.log_sum_columns(u))


@pytest.mark.parametrize("unbalanced", [None, 0.4, (0.4, None), (None, 0.01), (0.0, None)], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (517, 263), (130, 700)], ids=str)
def test_a_sweep_of_the_near_is_a_sweep(shape, unbalanced):
    p = problem(*shape, unbalanced=unbalanced)
    check(p, [p.b.log(), settled(p)])


@pytest.mark.parametrize("d", [1, 3, 8])
@pytest.mark.parametrize("reg", [1e-1, 1e-5])
def test_dimensions_and_regs(d, reg):
    p = problem(400, 300, d, reg)
    check(p, [p.b.log(), settled(p)])


@pytest.mark.parametrize("far", [3.0, 40.0, 1000.0])
def test_potentials_far_from_the_solution(far):
    """One after another, so that what was judged for one meets the next."""
    p = problem(400, 300)
    v = settled(p)
    jumps = [far * torch.randn_like(v) for _ in range(2)]
    check(p, [v, v + jumps[0], v, v - far, v + jumps[1], v + far])


def test_clusters_very_far_apart_keep_their_digits():
    """Squares of distances from one middle, over reg, would round to more than the tolerance."""
    far = torch.tensor([1e4, 0.0]).double()
    x, y = (torch.cat([torch.rand(n, 2), torch.rand(n, 2) + far]).double() for n in (350, 325))
    r = so.solve(PointCloud(x, y, memory=1 << 20), reg=1e-3, tol=1e-6, max_iter=150)
    assert r.converged
    rows, columns = r.plan.sum(1), r.plan.sum(0)
    assert (rows * 700 - 1).abs().mean() + (columns * 650 - 1).abs().mean() <= 1e-5


@pytest.mark.parametrize("scale", [1e60, 1e-100])
def test_any_unit_of_length(scale):
    """Single precision holds no such numbers, and does not have to."""
    p = problem(300, 200)
    cost = PointCloud(scale * p.cost.x, scale * p.cost.y)
    far = make(cost, p.a, p.b, float(p.reg[0]) * scale**2)
    u, s = Near(far, LOST, roughly=True).sweep(None, p.b.log())
    want = Near(p, LOST, roughly=True).sweep(None, p.b.log())
    torch.testing.assert_close((u, s), want, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("reg", [1e-3, 1e-4])
@pytest.mark.parametrize("memory", [1 << 20, 1 << 17])
def test_derivatives_are_those_of_the_matrix(reg, memory):
    """What leads Newton's steps has too few digits for them."""
    x, y = torch.rand(300, 2).double(), torch.rand(250, 2).double() ** 2

    def grad(held):
        at = x.clone().requires_grad_()
        so.solve(PointCloud(at, y, memory=held), reg=reg, tol=1e-9).value_linear.backward()
        return at.grad

    want = grad(1 << 30)
    assert (grad(memory) - want).abs().max() <= 1e-6 * want.abs().max()


def test_what_is_no_number_is_told():
    p = problem(300, 200)
    near, v = Near(p, LOST), settled(p)
    near.sweep(None, v)
    for wrong in (math.nan, math.inf):
        bad = v.clone()
        bad[0, 7] = wrong
        assert not torch.isfinite(near.sweep(None, bad)[0][p.a > 0]).any()
    assert (near.log_sum_rows(torch.full_like(v, -math.inf)) == -math.inf).all()
    assert_same(near.sweep(None, v)[0], Reference(p).sweep(None, v)[0])


@pytest.mark.parametrize("kind", ["one point", "few points", "a line", "two clusters"])
def test_clouds_that_are_no_clouds(kind):
    x, y = torch.rand(300, 3).double(), torch.rand(400, 3).double()
    if kind == "one point":
        x, y = x[:1].expand(300, 3), y[:1].expand(400, 3)
    elif kind == "few points":
        x, y = x[torch.randint(0, 3, (300,))], y[torch.randint(0, 5, (400,))]
    elif kind == "a line":
        x, y = (t[:, :1] * torch.tensor([[1.0, 2.0, 3.0]]).double() for t in (x, y))
    else:
        x[:100] += 30.0
        y[:150] += 29.0
    p = make(PointCloud(x, y), None, None, 1e-3)
    check(p, [p.b.log(), settled(p)])


def test_coordinates_that_are_scaled():
    p = problem(300, 200)
    scale = torch.tensor([3.0, 0.0]).double()
    cost = PointCloud(p.cost.x, p.cost.y, scale=scale)
    check(make(cost, p.a, p.b, 1e-2), [p.b.log()])


@pytest.mark.parametrize("transpose", [False, True])
def test_products_with_the_plan(transpose):
    p = problem(300, 200)
    near, reference, v = Near(p, LOST), Reference(p), settled(p)
    u, _ = reference.sweep(None, v)
    x = torch.randn(1, 300 if transpose else 200, 3).double()
    assert_same(near.apply(u, v, x, transpose), reference.apply(u, v, x, transpose))
    torch.testing.assert_close(near.linear(u, v), reference.linear(u, v))


def test_products_with_the_curve():
    p = problem(300, 200)
    near, reference, v = Near(p, LOST), Reference(p), settled(p)
    u, _ = reference.sweep(None, v)
    x = torch.randn(1, 200).double()
    got, want = near.curve_product(u, v)(x), reference.curve_product(u, v)(x)
    # held in single precision, less what is faint
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5 * float(want.abs().max()))
    sums, group = near.gathered_curve(u, v)
    one = torch.nn.functional.one_hot(group).double()
    want = one.T @ reference.curve(u, v)[0] @ one
    torch.testing.assert_close(sums[0], want, rtol=0, atol=2e-5 * float(want.max()))


def sparse_curve(p: Problem):
    v = settled(p)
    u, _ = Reference(p).sweep(None, v)
    return Near(p, LOST).sparse_curve(u, v), Reference(p).curve(u, v)[0]


def test_a_curve_is_sparse_where_few_points_are_near(monkeypatch):
    (W, order), want = sparse_curve(problem(300, 200, reg=1e-5))
    want = want[order][:, order]
    torch.testing.assert_close(torch.from_numpy(W.toarray()), want, rtol=1e-5, atol=1e-13)
    assert W.nnz < 0.1 * want.numel()
    # many neighbours, or neighbours in all directions, fill what is factorised
    assert sparse_curve(problem(300, 200, reg=1e-2))[0] is None
    solid = problem(300, 200, d=3, reg=1e-5)
    assert sparse_curve(solid)[0] is not None
    monkeypatch.setattr("sinkhorn_ot.sweeps.portable.near.near._COLUMNS", 100)
    assert sparse_curve(solid)[0] is None


@pytest.mark.parametrize("d", [1, 2, 5])
def test_no_pair_carries_more_than_its_blocks_may(d):
    x, y = torch.rand(200, d).double(), torch.rand(150, d).double()
    rows, columns, h = blocks(x, 16), blocks(y, 16), 0.01
    u, v = (torch.randn(k).double() * 5 for k in (200, 150))
    for smooth in (0.0, 20.0):
        u, v = u + smooth * rows.points.sum(1), v - smooth * columns.points.sum(1)
        bound = most(rows, above(rows, u), columns, above(columns, v), h)
        pair = u[:, None] + v - torch.cdist(rows.points, columns.points).square() / h
        for k in range(len(rows)):
            row = pair[rows.starts[k] : rows.starts[k + 1]].amax(0)
            best = torch.stack([part.amax() for part in row.split(columns.sizes.tolist())])
            assert (bound[k] >= best - 1e-9).all()


def test_blocks_hold_every_point_once():
    x = torch.rand(1000, 3).double()
    at = blocks(x, 17)
    assert torch.equal(at.order.sort().values, torch.arange(1000))
    assert torch.equal(at.points[at.place], x)
    assert int(at.sizes.max()) <= 17
    inside = (at.points >= at.low[at.block]) & (at.points <= at.high[at.block])
    assert inside.all()


@pytest.mark.parametrize("rough", [0.0, 1.0])
def test_least_costs_are_of_all_pairs(rough):
    """Whatever the potential, and whoever has no say."""
    p = problem(500, 400, 3)
    g = rough * torch.randn(400).double() - (p.cost.y[0] - 0.2).square().sum(1)
    g[5:90] = -math.inf
    C = p.cost.rows(0, 500)[0]
    found = least_rows(p.cost, g, torch.sub)
    torch.testing.assert_close(found, (C - g).amin(1), rtol=0, atol=1e-14)
    assert (least_rows(p.cost, torch.full_like(g, -math.inf), torch.sub) == math.inf).all()


def test_a_solve_among_many_points_begins_with_few():
    """Its answer is that of one that looks at all pairs."""
    n = 3100
    p = problem(n, n, reg=1e-4, zeros=False, memory=1 << 24)
    assert isinstance(choose(p, 1e-6), Near)
    r = so.solve(p.cost, p.a, p.b, 1e-4, tol=1e-8)
    rows, columns = r.apply(torch.ones_like(p.b)), r.apply_transpose(torch.ones_like(p.a))
    assert r.converged
    assert float((rows - p.a).abs().sum() + (columns - p.b).abs().sum()) < 1e-8
    u, v = r.f / 1e-4 + p.a.log(), r.g / 1e-4 + p.b.log()
    truth = OnTheFly(p).log_sum_rows(v)
    torch.testing.assert_close(p.a.log() - truth, u, rtol=0, atol=1e-8)
    # what was left out is told, and allowed for
    assert 0 < r.dropped <= 1e-8
    assert "dropped" in repr(r)
    whole = replace(r, coupling=replace(r.coupling, sweep=OnTheFly(r.problem)))
    assert whole.dropped == 0
    assert "dropped" not in repr(whole)
    torch.testing.assert_close(r.value, whole.value, rtol=1e-9, atol=0)
    torch.testing.assert_close(r.dual_value, whole.dual_value, rtol=1e-12, atol=0)
    assert float(r.dual_value) <= float(whole.dual_value) + 1e-16
    proof, other = r.certificate(), whole.certificate()
    torch.testing.assert_close(proof.lower, other.lower, rtol=1e-12, atol=0)
    assert 0 <= float(proof.upper - other.upper) <= 1e-9


def test_a_certificate_looks_at_all_pairs(monkeypatch):
    monkeypatch.setattr(choice, "_PAIRS", 1)
    p = problem(700, 400, zeros=False)
    r = so.solve(p.cost, p.a, p.b, 1e-2, max_iter=3, on_fail="ignore")
    proof = r.certificate()
    C = p.cost.rows(0, 700)
    assert float((proof.f[..., :, None] + proof.g[..., None, :] - C).amax()) <= 1e-14


@pytest.mark.parametrize("most", [2, 7])
def test_sweeps_among_few_count(most):
    p = problem(3100, 3050, zeros=False, memory=0)
    seen = []
    r = so.solve(
        p.cost, p.a, p.b, 1e-3, max_iter=most, on_fail="ignore", callback=lambda k: seen.append(k)
    )
    assert int(r.n_iter) == most == len(seen)
    assert [k.n_iter for k in seen] == list(range(1, most + 1))


def test_who_stops_among_few_stops_all():
    p = problem(3100, 3050, zeros=False, memory=0)
    r = so.solve(p.cost, p.a, p.b, 1e-3, on_fail="ignore", callback=lambda k: True)
    assert r.status is so.Status.STOPPED
    # a sweep of each, which must have one
    assert int(r.n_iter) <= 4


def test_where_all_fits_all_is_held():
    """What is smaller or smoother is as quick without."""
    few, many = problem(2000, 2000), problem(8200, 8200)
    assert not choice.near(few)
    assert choice.near(many)
    assert not choice.near(replace(many, reg=torch.tensor([1e-2]).double(), one_reg=1e-2))
    assert not choice.near(problem(8200, 8200, d=5))


def test_a_plan_is_narrow_where_few_are_around_a_point():
    """However far others are: where many are, what counts would not fit."""
    p = problem(7000, 6000, reg=1e-4, zeros=False)
    assert choice.narrow(p)
    assert suitable(p) is NEWTON
    x, y = p.cost.x[0].clone(), p.cost.y[0].clone()
    x[:3000] += 1e3
    y[:3000] += 1e3
    apart = make(PointCloud(x, y, memory=1 << 25), None, None, 1e-1)
    assert choice.near(apart)
    assert not choice.narrow(apart)
    assert choice.narrow(apart.at(torch.tensor([1e-4]).double()))
    assert not choice.narrow(problem(7000, 6000, d=3, reg=1e-4, zeros=False))
    # what all hold is looked at by all
    assert not choice.narrow(problem(700, 600, reg=1e-4, zeros=False))


def test_points_further_apart_than_a_kernel_is_wide(monkeypatch):
    """Conjugate gradients would not arrive, and many points have no room for a matrix."""
    own = Near.curve_product

    def product(self, u, v):
        assert self.problem.least_reg > 1e-6
        return own(self, u, v)

    monkeypatch.setattr(Near, "curve_product", product)
    p = problem(900, 700, reg=1e-6, memory=1 << 20)
    assert choice.narrow(p)
    r = so.solve(p.cost, p.a, p.b, 1e-6, tol=1e-9)
    assert r.converged
    assert int(r.n_iter) < 300
    rows, columns = r.apply(torch.ones_like(p.b)), r.apply_transpose(torch.ones_like(p.a))
    assert float((rows - p.a).abs().sum() + (columns - p.b).abs().sum()) < 1e-9
    exact = so.solve_exact(p.cost.rows(0, 900), p.a, p.b)
    assert float(exact.value) <= float(r.value_linear) <= float(exact.value) + 1e-6


@pytest.mark.parametrize("far", [30.0, 1000.0])
def test_clusters_far_apart_are_no_harder(far):
    """A block that spans the gap has coordinates that single precision does not tell apart."""
    x, y = torch.rand(700, 2).double(), torch.rand(560, 2).double()
    x[:330] += far
    y[:264] += far
    near, held = (
        so.solve(so.PointCloud(x, y, memory=memory), reg=1e-3, tol=1e-7, max_iter=100)
        for memory in (1, 1 << 30)
    )
    assert near.dropped > 0
    assert float(near.value) == pytest.approx(float(held.value), rel=1e-6)
