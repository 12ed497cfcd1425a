"""Sums by polynomials, against the sums over all pairs."""

import math

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import PointCloud
from sinkhorn_ot.problem import make
from sinkhorn_ot.sweeps.portable.near import boxes as at_boxes
from sinkhorn_ot.sweeps.portable.near import gauss
from sinkhorn_ot.sweeps.portable.near import near as at_near
from sinkhorn_ot.sweeps.portable.near.boxes import Boxes
from sinkhorn_ot.sweeps.portable.near.fewer import tree
from sinkhorn_ot.sweeps.portable.near.gauss import Gauss, quicker
from sinkhorn_ot.sweeps.portable.near.near import Near
from sinkhorn_ot.sweeps.reference import Reference


# points, dimensions and reg of clouds that are dense beside the kernel
DENSE = [(300, 1, 1e-3), (1500, 2, 6e-3), (1200, 3, 5e-2), (400, 4, 0.4)]
# what polynomials may be wrong by, in logarithms
FIVE_DIGITS = 5e-5


def clouds(n: int, d: int):
    """Points in a cube, and as many that are moved to its corner."""
    return torch.rand(n, d).double(), torch.rand(n, d).double() ** 1.5


def log_sums(x, y, h, t):
    """Logarithms of sums over y at x, by pairs."""
    C = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()
    return C.mul_(-1 / h).add_(t).logsumexp(-1)


def settled(x, y, h, sweeps=4):
    """Potentials some plain steps from the start; the rows' first, which answer the columns'."""
    v = torch.full((len(y),), -math.log(len(y))).double()
    for _ in range(sweeps):
        u = -math.log(len(x)) - log_sums(x, y, h, v)
        v = -math.log(len(y)) - log_sums(y, x, h, u)
    return -math.log(len(x)) - log_sums(x, y, h, v), v


@pytest.mark.parametrize("d", [1, 2, 3])
def test_polynomials_tell_what_is_smooth_and_spread_as_they_gather(d):
    x = torch.rand(1000, d).double() - 3
    boxes = Boxes(x, 0.1, 8)
    at, rest = torch.zeros(len(boxes.which), d).double(), boxes.which
    for k in reversed(range(d)):
        at[:, k] = rest % boxes.shape[k]
        rest = rest // boxes.shape[k]
    nodes = boxes.low + 0.1 * (at[:, None] + 0.5 + boxes.nodes)

    def smooth(z):
        return (3 * z).sum(-1).sin()

    torch.testing.assert_close(boxes.gather(smooth(nodes)), smooth(x), atol=1e-6, rtol=0)
    weight, values = torch.rand(1000).double(), torch.randn(*nodes.shape[:2]).double()
    spread, gathered = (boxes.spread(weight) * values).sum(), boxes.gather(values) @ weight
    torch.testing.assert_close(spread, gathered, rtol=1e-5, atol=1e-4)


def test_a_box_of_many_points_comes_in_parts(monkeypatch):
    x, weight = torch.rand(500, 2).double(), torch.rand(500).double()
    x[100:400] = x[0]
    whole = Boxes(x, 0.3, 8)
    monkeypatch.setattr(at_boxes, "_TABLE", 8 * 64)
    parts = Boxes(x, 0.3, 8)
    assert len(parts._groups) > len(whole._groups)
    torch.testing.assert_close(parts.spread(weight), whole.spread(weight), atol=1e-4, rtol=1e-5)
    values = torch.randn(len(whole.which), 64).double()
    torch.testing.assert_close(parts.gather(values), whole.gather(values))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_slopes_are_those_of_an_affine_function_even_where_a_box_has_one_point(d):
    x = torch.rand(50, d).double()
    slope = torch.arange(1, d + 1).double()
    t = 5 - x @ slope
    t[7] = -math.inf
    boxes = Boxes(x, 0.02, 8)
    want = (-0.02 * slope).expand(len(boxes.which), d)
    torch.testing.assert_close(boxes.slopes(t), want, rtol=0.2, atol=0)


@pytest.mark.parametrize("apart", [0.0, 7.0])
@pytest.mark.parametrize(("n", "d", "h"), DENSE)
def test_sums_are_those_over_all_pairs(n, d, h, apart):
    x, y = clouds(n, d)
    u, v = settled(x, y, h)
    moved = y + apart
    # what moves with the points
    v = v + (moved.square().sum(1) - y.square().sum(1)) / h
    u = u - (2 * apart * x.sum(1) - 0.0) / h
    v = v - (2 * apart * y.sum(1) + d * apart**2) / h + 2 * apart * y.sum(1) / h
    transform = Gauss([x, moved], h)
    for k, t, ends in ((1, v, (x, moved)), (0, u, (moved, x))):
        got = transform.log_sums(k, t)
        assert got is not None
        torch.testing.assert_close(got, log_sums(*ends, h, t), atol=FIVE_DIGITS, rtol=1e-12)


def test_points_without_weight_and_clusters_apart():
    x, y = clouds(2000, 2)
    x[:600] += 3.0
    y[:500] += 2.9
    u, v = settled(x, y, 5e-3)
    v[[4, 900, 1999]] = -math.inf
    v[y[:, 0] < 0.1] = -math.inf
    got = Gauss([x, y], 5e-3).log_sums(1, v)
    assert got is not None
    torch.testing.assert_close(got, log_sums(x, y, 5e-3, v), atol=FIVE_DIGITS, rtol=1e-12)


@pytest.mark.parametrize(("n", "d", "h"), DENSE)
def test_the_product_is_that_of_the_plan(n, d, h):
    x, y = clouds(n, d)
    u, v = settled(x, y, h)
    P = (u[:, None] + v - (x[:, None] - y).square().sum(-1) / h).exp()
    share, z, w = 1 / P.sum(1), torch.randn(n).double(), torch.randn(n).double()
    times = Gauss([x, y], h).product(u, v, share)
    want = P.T @ (share * (P @ z))
    assert (times(z) - want).abs().sum() <= FIVE_DIGITS * (P.T @ (share * (P @ z.abs()))).sum()
    # as a step by conjugate gradients needs it
    torch.testing.assert_close(w @ times(z), z @ times(w), atol=1e-9, rtol=1e-4)


def test_what_polynomials_cannot_tell_is_not_told():
    # fewer points than the kernel is wide, under a potential that is not smooth
    x, y = clouds(200, 2)
    got = Gauss([x, y], 1e-3).log_sums(1, 30 * torch.randn(200).double())
    assert got is None
    # or a box that spans more than numbers do
    assert Gauss([x, y + 100.0], 1e-3).log_sums(1, torch.zeros(200).double()) is None


def test_where_they_are_quicker():
    x, y = clouds(20_000, 2)
    few, many = PointCloud(x[None, :200], y[None, :200]), PointCloud(x[None], y[None])
    trees, small = ((tree(c, 0), tree(c, 1)) for c in (many, few))
    lost, memory = math.log(1e-5), 1 << 30
    assert quicker(trees, 1e-2, lost, memory)
    # there they take too much, pairs are few, or points are
    assert not quicker(trees, 1e-2, lost, 1 << 10)
    assert not quicker(trees, 1e-6, lost, memory)
    assert not quicker(small, 1e-2, lost, memory)


@pytest.fixture
def led(monkeypatch):
    """Have polynomials lead among few points; count their sums."""
    monkeypatch.setattr(at_near, "quicker", lambda *args: True)
    made, sums = [], Gauss.log_sums

    def counted(*args):
        out = sums(*args)
        made.append(out is not None)
        return out

    monkeypatch.setattr(gauss.Gauss, "log_sums", counted)
    return made


@pytest.mark.parametrize("tol", [1e-3, 1e-9])
def test_they_lead_and_pairs_decide(led, monkeypatch, tol):
    monkeypatch.setattr(at_near, "_MANY", 10_000)
    n, reg = 1500, 5e-3
    x, y = clouds(n, 2)
    a = torch.rand(n).double()
    a[5] = 0
    cost = PointCloud(x, y, memory=1 << 20)
    got = so.solve(cost, a / a.sum(), reg=reg, tol=tol)
    assert got.converged
    assert len(led) > 6
    assert all(led)
    want = so.solve(torch.cdist(x, y).square(), a / a.sum(), reg=reg, tol=tol)
    torch.testing.assert_close(got.value, want.value, rtol=3 * tol, atol=0)
    # errors are those of the plan that is returned, which pairs tell
    p = make(cost, a / a.sum(), None, reg)
    v = (got.g / reg + p.b[0].log())[None]
    assert abs(Reference(p).sweep(None, v)[1].exp().sub(p.b).abs().sum()) <= 2 * tol


def test_a_sweep_near_the_solution_is_by_pairs(led):
    x, y = clouds(1000, 2)
    p = make(PointCloud(x, y), None, None, 1e-1)
    near, v = Near(p, math.log(1e-11), roughly=True), p.b.log()
    reference = Reference(p)
    for k in range(100):
        u, s = near.sweep(None, v)
        error = (s.exp() - p.b).abs().sum()
        if k == 0:
            assert near.told()["led"]
            assert led == [True, True]
        if error < 1e-4:
            break
        v = v + p.b.log() - s
    assert not near.told()["led"]
    want = reference.sweep(None, v)
    torch.testing.assert_close(u, want[0], atol=1e-9, rtol=1e-10)
    torch.testing.assert_close(s, want[1], atol=1e-9, rtol=1e-10)


def test_beside_free_marginals_pairs_are_looked_at(led):
    x, y = clouds(300, 2)
    p = make(PointCloud(x, y), None, None, 1e-1, 0.5)
    near = Near(p, math.log(1e-11), roughly=True)
    near.sweep(None, p.b.log())
    assert not led


def test_no_number_is_left_to_pairs(led):
    x, y = clouds(300, 2)
    p = make(PointCloud(x, y), None, None, 1e-1)
    near, v = Near(p, math.log(1e-11), roughly=True), p.b.log()
    v[0, 3] = math.nan
    assert not torch.isfinite(near.sweep(None, v)[0]).any()
    assert not led
