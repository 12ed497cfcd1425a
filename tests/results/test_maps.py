"""New points: potentials and means are those of the fitted points there, and smooth between."""

import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import sinkhorn_ot as so


D = torch.float64
METRICS = ["sqeuclidean", "euclidean", "manhattan", "chebyshev", "dot", "cosine"]
SIDES = ["source", "target"]


def cloud(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def weights(*shape, seed=0, zero=None):
    w = torch.rand(*shape, dtype=D, generator=torch.Generator().manual_seed(seed)) + 0.1
    if zero is not None:
        w[..., zero] = 0
    return w / w.sum(-1, keepdim=True)


X, Y, Z = cloud(12, 3), cloud(15, 3, seed=1), cloud(7, 3, seed=2)
A, B = weights(12, seed=3, zero=2), weights(15, seed=4, zero=5)


def fitted(cost=None, **how):
    how = {"reg": 0.5, "tol": 1e-12, **how}
    return so.solve(so.PointCloud(X, Y) if cost is None else cost, A, B, **how)


@pytest.mark.parametrize("unbalanced", [None, (0.5, 0.8), (None, 0.3), (0, None), (None, 0)])
@pytest.mark.parametrize("metric", METRICS)
def test_fitted_points_are_where_they_were(metric, unbalanced):
    """Those without weight too, and beside any rule of the marginals."""
    C = so.PointCloud(X, Y, metric).flat(torch.Size([1])).rows(0, 12)[0]
    scaled = so.PointCloud(X / 2, Y / 2, metric, scale=[2, 2, 2])
    for cost in (scaled, C):
        r = fitted(cost, unbalanced=unbalanced)
        points = isinstance(cost, so.PointCloud)
        rows = {"x": X / 2} if points else {"cost": C}
        columns = {"x": Y / 2} if points else {"cost": C}
        f, g = r.potential(**rows), r.potential(**columns, side="target")
        torch.testing.assert_close(f, r.f, atol=1e-11, rtol=1e-11)
        torch.testing.assert_close(g, r.g, atol=1e-10, rtol=1e-10)
        mean = r.map(**rows, y=Y)
        torch.testing.assert_close(mean, r.barycentric(Y), atol=1e-12, rtol=1e-12)
        back = r.map(**columns, y=X, side="target")
        whole = r.plan.sum(0)[:, None]
        some = B > 0
        torch.testing.assert_close(back[some], (r.plan.mT @ X / whole)[some], atol=1e-9, rtol=0)


@pytest.mark.slow(3)
def test_a_hundred_problems_by_their_definition():
    """Against POT's potentials, extended by hand."""
    ot = pytest.importorskip("ot")
    for seed in range(100):
        n, m, d = 4 + seed % 9, 5 + seed % 7, 1 + seed % 3
        x, y, z = (cloud(k, d, seed=seed + 1000 * i) for i, k in enumerate((n, m, 6)))
        a, b, reg = weights(n, seed=seed), weights(m, seed=seed + 1), 0.3 * d
        M = torch.cdist(x, y).square()
        how = {"stopThr": 1e-13, "numItermax": 20000, "log": True}
        _, log = ot.sinkhorn(a.numpy(), b.numpy(), M.numpy(), reg, **how)
        u, v = (torch.from_numpy(log[k]).log() for k in "uv")
        s = v - torch.cdist(z, y).square() / reg
        want = -reg * torch.logsumexp(s, -1) + reg * (u[0] - a[0].log())
        want = want + reg * torch.logsumexp((v - M / reg)[0], -1)
        r = so.solve(so.PointCloud(x, y), a, b, reg, tol=1e-13, on_fail="ignore")
        # the constant is told by the first point
        got = r.potential(z) - r.f[0]
        want = want - reg * (u[0] - a[0].log())
        torch.testing.assert_close(got, want, atol=1e-8, rtol=0)
        torch.testing.assert_close(r.map(z), s.softmax(-1) @ y, atol=1e-8, rtol=0)


def test_a_potential_descends_along_the_map():
    r, z = fitted(), Z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(r.potential(z).sum(), z)
    torch.testing.assert_close(z - slope / 2, r.map(z))
    # a relaxed side answers by its share alone
    r = fitted(unbalanced=(0.5, None))
    (slope,) = torch.autograd.grad(r.potential(z).sum(), z)
    torch.testing.assert_close(z - slope / 2 * (0.5 + 0.5) / 0.5, r.map(z))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "manhattan", "cosine"])
def test_derivatives_by_new_points(metric, side):
    r, y = fitted(so.PointCloud(X, Y, metric)), (X if side == "target" else Y)
    z = Z[:3].clone().requires_grad_()
    assert gradcheck(lambda z: r.potential(z, side=side), z)
    assert gradgradcheck(lambda z: r.potential(z, side=side), z, atol=1e-6)
    assert gradcheck(lambda z, y: r.map(z, y=y, side=side), (z, y.clone().requires_grad_()))
    assert gradgradcheck(lambda z: r.map(z, side=side), z, atol=1e-6)


# what torch itself warns of when it loads its transforms
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_derivatives_by_new_costs_and_at_fitted_points():
    r = fitted(torch.cdist(X, Y))
    C = torch.cdist(Z, Y).requires_grad_()
    assert gradcheck(lambda C: r.potential(cost=C), C)
    assert gradcheck(lambda C: r.map(cost=C, y=Y), C)
    r, z = fitted(), Y[:4].clone().requires_grad_()
    # a target point's cost to itself is zero, whose slope is zero and whose curvature is not
    assert gradgradcheck(lambda z: r.potential(z), z, atol=1e-5)
    hessian = torch.func.hessian(lambda z: r.potential(z).sum())(Z[:1])
    want = torch.autograd.functional.hessian(lambda z: r.potential(z).sum(), Z[:1])
    torch.testing.assert_close(hessian, want)


def test_exact_potentials_are_c_transforms():
    C = torch.cdist(X, Y)
    r = so.solve_exact(C, A, B)
    torch.testing.assert_close(r.potential(cost=C)[A > 0], r.f[A > 0], atol=1e-12, rtol=0)
    columns = r.potential(cost=C, side="target")
    torch.testing.assert_close(columns[B > 0], r.g[B > 0], atol=1e-12, rtol=0)
    # also for who would go to a point without weight
    new = torch.cdist(torch.cat([Z, Y]), Y)
    want = (new - r.g)[:, B > 0].amin(-1)
    torch.testing.assert_close(r.potential(cost=new), want)
    with pytest.raises(ValueError, match=r"map\(\) needs the plan of solve: that of solve_exact"):
        r.map(cost=new, y=Y)
    r = so.solve_exact(so.PointCloud(X, Y))
    with pytest.raises(ValueError, match=r"cost must be given, \(..., k, 15\): solve_exact holds"):
        r.potential(Z)
    # nor is a cost asked for that would not help
    with pytest.raises(ValueError, match=r"map\(\) needs the plan of solve: that of solve_exact"):
        r.map(Z)
    assert float((want - (new - r.g).amin(-1)).max()) > 0.1


@pytest.mark.parametrize("shared", [True, False])
def test_batches(shared):
    x = X if shared else cloud(4, 12, 3, seed=7)
    b, reg = weights(4, 15, seed=8, zero=1), torch.tensor([0.3, 0.5, 1.0, 0.2], dtype=D)
    r = so.solve(so.PointCloud(x, Y), None, b, reg, tol=1e-12)
    for z in (Z, cloud(4, 7, 3, seed=9), cloud(1, 7, 3, seed=9)):
        f, t = r.potential(z), r.map(z)
        assert (f.shape, t.shape) == ((4, 7), (4, 7, 3))
        for k in range(4):
            cost = so.PointCloud(x if shared else x[k], Y)
            one = so.solve(cost, None, b[k], float(reg[k]), tol=1e-12)
            alone = z if z.ndim == 2 else z[k if len(z) > 1 else 0]
            torch.testing.assert_close(f[k], one.potential(alone), atol=1e-9, rtol=0)
            torch.testing.assert_close(t[k], one.map(alone), atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match=r"x and the problem must have leading dimensions that"):
        r.potential(cloud(3, 7, 3))
    with pytest.raises(ValueError, match="x must have leading dimensions that fit the problem's"):
        r.potential(cloud(2, 4, 7, 3))


def test_blocks_change_nothing_and_bound_memory(monkeypatch):
    """Neither numbers nor derivatives, whatever fits at once."""
    z = cloud(50, 3).requires_grad_()
    r = fitted()

    def told():
        numbers = r.potential(z).sum() + (r.map(z) * cloud(50, 3, seed=5)).sum()
        return numbers, *torch.autograd.grad(numbers, z)

    want, seen = told(), []
    monkeypatch.setattr("sinkhorn_ot.results.maps._BLOCK", 60)
    exp = torch.Tensor.amax
    monkeypatch.setattr(
        torch.Tensor, "amax", lambda t, *args: (seen.append(t.numel()), exp(t, *args))[1]
    )
    for ours, truth in zip(told(), want, strict=True):
        torch.testing.assert_close(ours, truth)
    assert max(seen) == 60


def test_single_precision_is_as_good_as_its_dtype():
    few = [t.float() for t in (X, Y, A, B)]
    r = so.solve(so.PointCloud(*few[:2]), *few[2:], reg=0.5)
    assert r.potential(Z.float()).dtype == r.map(Z).dtype == torch.float32
    truth = fitted(tol=1e-13)
    torch.testing.assert_close(r.map(Z).double(), truth.map(Z), atol=1e-5, rtol=0)
    torch.testing.assert_close(r.map(few[0]), r.barycentric(few[1]), atol=1e-6, rtol=0)


def test_costs_far_from_zero_keep_their_digits():
    C = torch.cdist(X, Y) + 1e7
    r, near = fitted(C), fitted(torch.cdist(X, Y))
    new = torch.cdist(Z, Y)
    want = near.map(cost=new, y=Y)
    torch.testing.assert_close(r.map(cost=new + 1e7, y=Y), want, atol=1e-7, rtol=0)
    want = near.potential(cost=new) + 1e7
    torch.testing.assert_close(r.potential(cost=new + 1e7), want, atol=1e-7, rtol=0)


def test_a_point_that_no_pair_allows_has_no_answer():
    r = fitted(torch.cdist(X, Y))
    C = torch.cdist(Z, Y)
    C[3], C[1, 4] = math.inf, math.inf
    C.requires_grad_()
    f, t = r.potential(cost=C), r.map(cost=C, y=Y)
    assert float(f[3].detach()) == 0
    assert (t[3] == 0).all()
    (grad,) = torch.autograd.grad(f.sum() + t.sum(), C)
    assert (grad[3] == 0).all()
    assert bool(grad.isfinite().all())


@pytest.mark.parametrize(
    "unbalanced",
    [so.TV(0.3), (so.TV(0.2), None), (None, so.TV(0.4)), (so.KL(torch.full((12,), 0.5)), so.TV(1))],
)
def test_penalties_of_one_number_answer_alike(unbalanced):
    r = fitted(unbalanced=unbalanced, tol=1e-11)
    torch.testing.assert_close(r.potential(X), r.f, atol=1e-9, rtol=0)
    torch.testing.assert_close(r.potential(Y, side="target"), r.g, atol=1e-8, rtol=0)
    torch.testing.assert_close(r.map(X), r.barycentric(Y), atol=1e-11, rtol=0)
    z = Z.clone().requires_grad_()
    assert gradcheck(lambda z: r.potential(z), z)


def test_penalties_that_ask_for_more_than_a_point_are_told():
    per_point = so.KL(torch.linspace(0.1, 1, 12))
    sides = [per_point, so.L2(2.0), so.Between(None, 0.2)]
    results = [fitted(unbalanced=(one, None), tol=1e-9) for one in sides]
    results.append(so.solve(so.PointCloud(X, Y), A, B, 0.5, mass=0.6, tol=1e-9))
    for r in results:
        torch.testing.assert_close(r.map(X), r.barycentric(Y), atol=1e-9, rtol=0)
        with pytest.raises(
            ValueError, match=r"potential\(\) needs a side whose points all have one"
        ):
            r.potential(Z)
    # the other side is exact, and has one
    torch.testing.assert_close(
        results[0].potential(Y, side="target"), results[0].g, atol=1e-8, rtol=0
    )
    exact = so.solve_exact(torch.cdist(X, Y), A, B)
    exact = replace(exact, problem=replace(exact.problem, relax=(0.5, math.inf)))
    with pytest.raises(ValueError, match=r"potential\(\) of solve_exact needs exact marginals"):
        exact.potential(cost=torch.cdist(Z, Y))


def test_padding_is_nobody():
    """What stands in it may be anything, also among new costs and positions."""
    x, y, size = cloud(3, 9, 3, seed=5), cloud(3, 8, 3, seed=6), torch.tensor([9, 4, 6])
    rows, columns = torch.arange(9) < size[:, None], torch.arange(8) < size[:, None]
    x[~rows], y[~columns] = math.nan, math.nan
    new = torch.cdist(Z, y)
    for cost in (so.PointCloud(x, y), torch.cdist(x, y)):
        r = so.solve(cost, reg=0.5, tol=1e-11, mask=(rows, columns))
        given = {"x": Z} if isinstance(cost, so.PointCloud) else {"cost": new}
        f, t = r.potential(**given), r.map(**given, y=y)
        for k, n in enumerate(size.tolist()):
            left, right = x[k, :n], y[k, : min(n, 8)]
            if isinstance(cost, so.PointCloud):
                one, alone = so.solve(so.PointCloud(left, right), reg=0.5, tol=1e-11), {"x": Z}
            else:
                one = so.solve(torch.cdist(left, right), reg=0.5, tol=1e-11)
                alone = {"cost": torch.cdist(Z, right)}
            torch.testing.assert_close(f[k], one.potential(**alone), atol=1e-8, rtol=0)
            torch.testing.assert_close(t[k], one.map(**alone, y=right), atol=1e-8, rtol=0)


def test_kept_results_still_answer():
    r = fitted()
    again = pickle.loads(pickle.dumps(r))  # noqa: S301
    assert torch.equal(again.map(Z), r.map(Z))
    with torch.inference_mode():
        assert torch.equal(r.map(Z), again.map(Z))


FAR = [("sqeuclidean", 1.0, 1e155), ("euclidean", 1.0, 1e200), ("euclidean", 3.0, 1e110)]
FAR += [("manhattan", 2.0, 1e160), ("chebyshev", 0.5, 1e309), ("dot", 1.0, 1e308)]


@pytest.mark.parametrize(("metric", "power", "far"), FAR)
@pytest.mark.parametrize("side", SIDES)
def test_points_whose_costs_no_number_holds_are_told(metric, power, far, side):
    r = so.solve(so.PointCloud(X, Y, metric, power=power), A, B, 0.5)
    z = Z.clone()
    assert bool(r.map(1e90 * z, side=side).isfinite().all())
    z[3, 1] = far
    for act in (r.map, r.potential):
        with pytest.raises(ValueError, match="x and y must have finite costs|x must be finite"):
            act(z, side=side)


def test_what_a_function_says_of_new_points_is_looked_at():
    def logs(x, y):
        return (torch.cdist(x, y) + 1).log() + x[..., :, None, 0].log() * 0

    r = so.solve(so.PointCloud(X.abs(), Y, logs), A, B, 0.5)
    z = Z.abs()
    z[4, 0] = -1
    for act in (r.map, r.potential):
        with pytest.raises(ValueError, match="metric must return numbers above -inf, got nan betw"):
            act(z)

    def near(x, y):
        C = torch.cdist(x, y)
        return torch.where(C > 50, math.inf, C)

    # what it forbids is nobody's mistake
    r = so.solve(so.PointCloud(X, Y, near), A, B, 0.5)
    assert torch.equal(r.map(Z + 100), torch.zeros(7, 3, dtype=D))


def root(x, y):
    return (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1).sqrt()


def test_what_has_no_derivatives_says_so():
    x = X.clone().requires_grad_()
    r = so.solve(so.PointCloud(x, Y), reg=0.5)
    for name in ("potential", "map"):
        with pytest.raises(ValueError, match="by the arguments of its problem has no derivatives"):
            getattr(r, name)(Z)
        assert getattr(r.detach(), name)(Z).requires_grad is False
    r, z = so.solve(so.PointCloud(X, Y, root), reg=0.5), Y.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="x has a derivative that is no number"):
        r.map(z).sum().backward()


WRONG = [
    ({}, "x or cost must be given, new points or what they cost, and not both"),
    ({"x": Z, "cost": torch.cdist(Z, Y)}, "x or cost must be given"),
    ({"x": Z[:, :2]}, r"x must have points of 3 coordinates, .* got \(7, 2\)"),
    ({"x": Z[0]}, r"x must have shape \(..., k, d\), got \(3,\)"),
    ({"x": Z[:0]}, r"x must not be empty, got shape \(0, 3\)"),
    ({"x": Z / 0}, "x must be finite"),
    ({"x": Z.masked_fill(Z[1, 1] == Z, math.nan)}, r"x must be finite, got nan at index \(1, 1\)"),
    ({"x": "here"}, "x must hold real numbers"),
    ({"x": Z, "side": "left"}, "side must be one of 'source', 'target', got 'left'"),
    ({"cost": torch.cdist(Z, X)}, r"cost must have shape \(..., k, 15\), got \(7, 12\)"),
    (
        {"cost": torch.cdist(Z, Y), "side": "target"},
        r"cost must have shape \(..., 12, k\), got \(7, 15\)",
    ),
    ({"cost": torch.full((7, 15), 1e308, dtype=D)}, "cost / reg must be finite, .* 1e.308 at reg"),
    ({"cost": torch.full((7, 15), -1e308, dtype=D)}, "cost / reg must be finite, got costs up to"),
    ({"x": Z * 4.5e153}, "cost / reg must be finite, got costs up to"),
    ({"cost": torch.cdist(Z, Y) * math.nan}, "cost must be a number above -inf, got nan"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_what_is_no_point_is_refused(given, message):
    r = fitted()
    for act in (r.potential, lambda **k: r.map(y=Y, **k)):
        with pytest.raises(ValueError, match=message):
            act(**given)


def test_what_cannot_be_averaged_is_refused():
    r = fitted()
    with pytest.raises(ValueError, match=r"y must have shape \(..., 15, e\), got \(12, 3\)"):
        r.map(Z, y=X)
    with pytest.raises(ValueError, match="y must be given beside cost: what to average"):
        r.map(cost=torch.cdist(Z, Y))
    with pytest.raises(ValueError, match="y must be finite"):
        r.map(Z, y=Y / 0)
    with pytest.raises(
        ValueError, match=r"cost must be given, \(..., k, 15\): the problem has costs"
    ):
        fitted(torch.cdist(X, Y)).potential(Z)
    with pytest.raises(
        ValueError, match=r"cost must be given, \(..., 12, k\): the problem has costs"
    ):
        fitted(torch.cdist(X, Y)).potential(Z, side="target")
    grid = so.solve(so.GridCost([3, 4], p=2), reg=0.5)
    with pytest.raises(ValueError, match=r"cost must be given, \(..., k, 12\): a GridCost knows"):
        grid.potential(Z)
