"""Metrics with powers, scales and functions: their formulas, their kinks, and what is no metric."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import sinkhorn_ot as so
from sinkhorn_ot.problem import make
from sinkhorn_ot.problem.costs.metrics import METRICS
from sinkhorn_ot.sweeps import choose


def cloud(*shape, seed=0):
    new = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=new)


def distances(x, y, metric, power=1.0):
    apart = x[..., :, None, :] - y[..., None, :, :]
    order = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": math.inf}[metric]
    return torch.linalg.vector_norm(apart, order, dim=-1) ** power


def cubed(x, y):
    return torch.cdist(x, y, p=3.0)


def uphill(x, y):
    """Cost more the one way than the other."""
    rise = y[..., None, :, 0] - x[..., :, None, 0]
    return torch.cdist(x, y) + 2 * rise.clamp(min=0) ** 2


RAISED = [
    ("euclidean", 0.5), ("euclidean", 1.5), ("euclidean", 3.0), ("euclidean", 2.0),
    ("manhattan", 0.5), ("manhattan", 2.0), ("chebyshev", 1.0), ("chebyshev", 2.5),
]  # fmt: skip


@pytest.mark.parametrize(("metric", "power"), RAISED)
def test_problems_are_those_of_their_matrices(metric, power):
    """A hundred in all."""
    for seed in range(13):
        x, y = cloud(5 + seed, 1 + seed % 4, seed=seed), cloud(9, 1 + seed % 4, seed=seed + 50)
        scale = torch.rand(x.shape[1]).double() + 0.1
        a = torch.rand(len(x)).double() + 0.1
        a = a / a.sum()
        C = distances(scale * x, scale * y, metric, power)
        got = so.PointCloud(x, y, metric, power=power, scale=scale)
        bounds = got.validate()
        assert bounds.low <= float(C.min())
        assert bounds.high >= float(C.max()) * (1 - 1e-15)
        reg = 0.1 * float(C.mean())
        got, want = (so.solve(cost, a, reg=reg, tol=1e-12) for cost in (got, C))
        assert float((got.plan - want.plan).abs().max()) < 1e-8
        assert float(got.value) == pytest.approx(float(want.value), rel=1e-10)


@pytest.mark.parametrize("memory", [1 << 30, 0])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_function_is_its_matrix(batch, memory):
    # flat clouds of few sources are turned round before they are solved
    for n, m in ((40, 9), (9, 40)):
        x, y = cloud(*batch, n, 3), cloud(*batch, m, 3, seed=1)
        want = so.solve(uphill(x, y), reg=0.2, tol=1e-11)
        r = so.solve(so.PointCloud(x, y, uphill, memory=memory), reg=0.2, tol=1e-11)
        torch.testing.assert_close(r.plan, want.plan, atol=1e-9, rtol=0)


def test_a_function_may_forbid_pairs():
    def near(x, y):
        C = torch.cdist(x, y)
        return torch.where(C > 1.0, math.inf, C)

    x = torch.linspace(0, 3, 7)[:, None].double()
    r = so.solve(so.PointCloud(x, x + 0.2, near), reg=0.1)
    assert r.problem.bounds.forbids
    assert (r.plan[torch.cdist(x, x + 0.2) > 1.0] == 0).all()
    torch.testing.assert_close(r.plan, so.solve(near(x, x + 0.2), reg=0.1).plan)


def test_a_function_that_works_in_place_does_so_on_copies():
    def doubled(x, y):
        return torch.cdist(x, y.mul_(2))

    def by_numpy(x, y):
        y.detach().numpy()[:] *= 2
        return torch.cdist(x, y)

    x, y = cloud(6, 3), cloud(5, 3, seed=1)
    kept = x.clone(), y.clone()
    want = so.solve(torch.cdist(x, 2 * y), reg=0.3)
    for function in (doubled, by_numpy):
        r = so.solve(so.PointCloud(x, y, function), reg=0.3)
        assert torch.equal(x, kept[0])
        assert torch.equal(y, kept[1])
        torch.testing.assert_close(r.plan, want.plan, atol=1e-9, rtol=0)
        torch.testing.assert_close(r.map(x), want.barycentric(y), atol=1e-9, rtol=0)
    # and its derivatives are those of what it tells
    t, u = (kept[1].clone().requires_grad_() for _ in range(2))
    so.solve(so.PointCloud(x, t, doubled), reg=0.3).value.backward()
    so.solve(torch.cdist(x, 2 * u), reg=0.3).value.backward()
    torch.testing.assert_close(t.grad, u.grad, atol=1e-9, rtol=0)


def test_a_function_sees_no_more_pairs_than_memory_has(monkeypatch):
    seen = []

    def watched(x, y):
        seen.append(x.numel() * y.shape[-2])
        return torch.cdist(x, y)

    monkeypatch.setattr("sinkhorn_ot.problem.costs.functions._PAIRS", 1000)
    x, y = cloud(60, 2).requires_grad_(), cloud(70, 2, seed=1)
    so.solve(so.PointCloud(x, y, watched), reg=1.0).value.backward()
    assert max(seen) <= 1000


@pytest.mark.parametrize(("metric", "power"), [*RAISED, (cubed, 1.0)])
def test_derivatives_are_those_of_the_matrix(metric, power):
    x, y, scale = cloud(5, 3), cloud(4, 3, seed=1), torch.tensor([1.0, 0.3, 2.0]).double()
    # points of both clouds that coincide, and one coordinate of two others
    y[0] = x[0]
    y[1, 2] = x[1, 2]
    scale = None if callable(metric) else scale
    s = 1 if scale is None else scale

    def tell(cost):
        r = so.solve(cost, reg=0.3, tol=1e-13)
        return r.value + (r.plan * torch.arange(20).reshape(5, 4)).sum()

    live = x.clone().requires_grad_(), y.clone().requires_grad_()
    got = torch.autograd.grad(tell(so.PointCloud(*live, metric, power=power, scale=scale)), live)
    live = x.clone().requires_grad_(), y.clone().requires_grad_()
    # the root of zero has no derivative: that pair is told apart by hand
    C = cubed(*live) if callable(metric) else _kinked(*(s * t for t in live), metric, power)
    want = torch.autograd.grad(tell(C), live)
    for ours, truth in zip(got, want, strict=True):
        torch.testing.assert_close(ours, truth, atol=1e-7, rtol=1e-7)


def _kinked(x, y, metric, power):
    same = (x[:, None] == y[None]).all(-1)
    far = torch.where(same[..., None], 1.0, x[:, None] - y[None])
    order = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": math.inf}[metric]
    return torch.where(same, 0.0, torch.linalg.vector_norm(far, order, dim=-1) ** power)


@pytest.mark.slow(3)
@pytest.mark.parametrize(("metric", "power"), [("euclidean", 1.5), ("manhattan", 2.0)])
def test_powers_have_second_derivatives(metric, power):
    x, y = cloud(3, 2).requires_grad_(), cloud(4, 2, seed=1).requires_grad_()

    def value(x, y, n_iter=None):
        cost = so.PointCloud(x, y, metric, power=power, scale=[0.5, 1.0])
        how = {"tol": 1e-13} if n_iter is None else {"n_iter": n_iter}
        return so.solve(cost, reg=0.5, **how).value

    assert gradcheck(value, (x, y))
    assert gradgradcheck(value, (x, y), atol=1e-6)
    assert gradgradcheck(lambda x, y: value(x, y, 5), (x, y), atol=1e-6)


def test_functions_have_second_derivatives():
    def soft(x, y):
        return torch.log1p((x[..., :, None, :] - y[..., None, :, :]).square().sum(-1))

    x, y = cloud(3, 2).requires_grad_(), cloud(4, 2, seed=1).requires_grad_()

    def value(x, y):
        return so.solve(so.PointCloud(x, y, soft), reg=0.5, tol=1e-13).value

    assert gradgradcheck(value, (x, y), atol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_close_points_keep_their_digits(metric):
    """Beside a cluster far away, whose squares would take all of them."""
    near = 1e-9 * cloud(20, 3)
    x, y = (torch.cat([near, t + 1e6]) for t in (cloud(5, 3), cloud(5, 3, seed=1)))
    x[:20] += 1e-9 * cloud(20, 3, seed=2)
    left, right = (t.numpy().astype(np.longdouble) for t in (x, y))
    apart = abs(left[:, None] - right[None])
    truth = apart.sum(-1) if metric == "manhattan" else np.sqrt((apart**2).sum(-1))
    C = so.PointCloud(x, y, metric).flat(torch.Size([1])).rows(0, 25)[0].numpy()
    eager = distances(x, y, metric).numpy()
    error, allowed = (abs(t - truth) / truth for t in (C, eager))
    assert error.max() <= 2 * allowed.max() + 1e-16
    assert error.max() < 1e-14


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_derivatives_do_not_see_the_origin(metric):
    def slope(off):
        x = (X + off).requires_grad_()
        r = so.solve(so.PointCloud(x, Y + off, metric), reg=0.3, tol=1e-12)
        return torch.autograd.grad(r.value, x)[0]

    # numbers whose sums with the offset are exact
    X, Y = ((t * 1024).round() / 1024 for t in (cloud(9, 3), cloud(7, 3, seed=1)))
    torch.testing.assert_close(slope(2.0**30), slope(0.0), atol=1e-13, rtol=0)


KEPT = [(name, 1.0) for name in METRICS] + RAISED
KEPT += [(function, 1.0) for function in (cubed, uphill, torch.cdist)]


@pytest.mark.parametrize(("metric", "power"), KEPT)
def test_clouds_and_results_are_kept(metric, power):
    """After all that they hold beside their points was made, and of the other direction too."""
    x, y = cloud(6, 2).requires_grad_(), cloud(5, 2, seed=1)
    cost = so.PointCloud(x, y, metric, power=power)
    r = so.solve(cost, reg=0.5)
    r.value.backward()
    new, back = cloud(3, 2, seed=2), so.PointCloud(y, x.detach(), metric).transposed()
    for again in (copy.deepcopy(r), pickle.loads(pickle.dumps(r))):
        assert torch.equal(again.plan, r.plan.detach())
        assert torch.equal(again.map(new), r.detach().map(new))
        assert again.problem.cost.rule.bilinear == r.problem.cost.rule.bilinear
    flat = back.flat(torch.Size([1]))
    want = flat.rows(0, 6)
    for again in (copy.deepcopy(flat), pickle.loads(pickle.dumps(flat))):
        assert torch.equal(again.rows(0, 6), want)


def test_weights_of_squares_are_scales():
    x, y, w = cloud(6, 3), cloud(7, 3, seed=1), torch.tensor([0.0, 2.0, 0.25]).double()
    C = (w * (x[:, None] - y[None]).square()).sum(-1)
    got = so.solve(so.PointCloud(x, y, scale=w.sqrt()), reg=0.5)
    torch.testing.assert_close(got.plan, so.solve(C, reg=0.5).plan)


def test_half_precision_keeps_its_points_beside_a_scale():
    x, y = cloud(6, 3).half(), cloud(7, 3, seed=1).half()
    scale = torch.tensor([1.0, 1 / 3, 3.0])
    C = so.PointCloud(x, y, "manhattan", scale=scale).flat(torch.Size([1])).rows(0, 6)[0]
    want = distances(x.double() * scale.double(), y.double() * scale.double(), "manhattan")
    torch.testing.assert_close(C, want, atol=1e-14, rtol=0)


def test_kernels_serve_what_they_know():
    gpu = pytest.importorskip("sinkhorn_ot.sweeps.gpu")
    x, y = cloud(6, 3), cloud(7, 3, seed=1)
    for metric, how, served in (
        ("manhattan", {}, True), ("euclidean", {"scale": [1, 2, 3]}, True),
        ("euclidean", {"power": 2}, True), ("euclidean", {"power": 1.5}, False),
        ("chebyshev", {}, False), (cubed, {}, False),
    ):  # fmt: skip
        p = make(so.PointCloud(x, y, metric, **how), reg=1.0)
        assert gpu.serves(p) == served
        assert choose(p, 1e-9).problem is p


BAD = [
    ({"metric": "l1"}, "metric must be one of 'sqeuclidean', 'euclidean', 'manhattan', 'chebyshev"),
    ({"metric": None}, "metric must be one of"),
    ({"metric": "euclidean", "power": 0}, "power must be a finite number above zero, got 0"),
    ({"metric": "euclidean", "power": -1.0}, "power must be a finite number above zero, got -1"),
    ({"metric": "manhattan", "power": math.inf}, "power must be a finite number above zero"),
    ({"metric": "manhattan", "power": "two"}, "power must be one number, got 'two'"),
    ({"metric": "dot", "power": 2}, "power must be 1 unless metric is one of 'euclidean', 'manh"),
    ({"metric": cubed, "power": 2}, "power must be 1 unless metric is one of"),
    ({"scale": [1.0, 2.0]}, r"scale must have shape \(3,\), a number per coordinate, got \(2,\)"),
    ({"scale": 2.0}, r"scale must have shape \(3,\), a number per coordinate, got \(\)"),
    ({"scale": [1.0, -2.0, 1.0]}, "scale must be non-negative, got -2 at index 1"),
    ({"scale": [1.0, math.nan, 1.0]}, "scale must be finite, got nan at index 1"),
    ({"scale": "wide"}, "scale must hold real numbers"),
    ({"scale": torch.ones(3, requires_grad=True)}, "scale requires grad, and is a constant here"),
    ({"metric": lambda x, y: torch.cdist(x, y).mT}, "metric must return what points cost, a ten"),
    ({"metric": lambda x, y: torch.cdist(x, y).numpy()}, "it must be .*, got ndarray"),
    ({"metric": lambda x, y: torch.cdist(x, y).sum()}, r"it must be \(1, 2, 3\), got \(\)"),
    (
        {"metric": lambda x, y: torch.cdist(x, y).log() * 0},
        "metric must return numbers above -inf, got nan between point 0 of x and point 0 of y",
    ),
    ({"metric": lambda x, y: torch.cdist(x, y) / 0}, "metric must return numbers above|must allow"),
    (
        {"metric": lambda x, y: torch.cdist(x, y) * torch.ones((), requires_grad=True)},
        "metric must be a function of its points alone: it uses tensors that require grad",
    ),
]


@pytest.mark.parametrize(("how", "message"), BAD)
def test_what_is_no_metric_is_refused(how, message):
    x = cloud(6, 3)
    with pytest.raises(ValueError, match=message):
        so.solve(so.PointCloud(x, torch.cat([x[:1], cloud(4, 3, seed=1)]), **how), reg=0.3)


@pytest.mark.parametrize("bad", [-0.5, math.nan, math.inf])
def test_a_scale_is_looked_at_where_it_is_given(bad):
    with pytest.raises(ValueError, match=r"scale must be .*, got .* at index 1$"):
        so.PointCloud(cloud(6, 3), cloud(5, 3), scale=[1, bad, 2])


def test_points_at_infinity_are_refused():
    x = cloud(6, 3)
    x[2, 1] = math.inf
    for metric in ("manhattan", "chebyshev", cubed):
        with pytest.raises(ValueError, match=r"x must be finite, got inf at index \(2, 1\)"):
            so.solve(so.PointCloud(x, x, metric), reg=0.3)
    big = torch.tensor([[1e200]], dtype=torch.float64)
    with pytest.raises(ValueError, match="x and y must have finite costs, got points 2e"):
        so.solve(so.PointCloud(big, -big, "manhattan", power=2), reg=0.3)


def test_a_function_without_derivatives_is_refused_where_they_are_wanted():
    def ranks(x, y):
        return torch.cdist(x.detach(), y.detach())

    x, y = cloud(6, 3), cloud(5, 3, seed=1)
    so.solve(so.PointCloud(x, y, ranks), reg=0.3)
    with pytest.raises(ValueError, match="metric must return what has derivatives by the points"):
        so.PointCloud(x.requires_grad_(), y, ranks)


def test_a_derivative_that_is_no_number_is_told():
    def root(x, y):
        return (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1).sqrt()

    x = cloud(6, 3).requires_grad_()
    value = so.solve(so.PointCloud(x, x.detach().clone(), root), reg=0.3).value
    with pytest.raises(RuntimeError, match="metric has a derivative that is no number"):
        value.backward()
