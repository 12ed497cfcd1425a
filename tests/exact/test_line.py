"""Points on a line, which solve_exact answers by sorting: beside linear programs of their costs."""

import numpy as np
import pytest
import torch

import sinkhorn_ot as so


KINDS = [
    ("sqeuclidean", {}, lambda x, y: (x - y) ** 2),
    ("euclidean", {}, lambda x, y: abs(x - y)),
    ("manhattan", {"power": 1.5}, lambda x, y: abs(x - y) ** 1.5),
    ("chebyshev", {"power": 3, "scale": [2.0]}, lambda x, y: (2 * abs(x - y)) ** 3),
    ("dot", {}, lambda x, y: -x * y),
]


def problem(k: int):
    rng = np.random.default_rng(k)
    n, m = rng.integers(1, 12, 2)
    x, y = rng.normal(size=n), rng.normal(size=m)
    if k % 2:
        x, y = x.round(1), y.round(1)
    if k % 7 == 0:
        x = x + 1e3
    a, b = rng.random(n) * (rng.random(n) > 0.2), rng.random(m)
    a[0] += a.sum() == 0
    return x, y, a / a.sum(), b / b.sum()


@pytest.mark.parametrize(("metric", "more", "cost"), KINDS)
def test_they_are_the_optimum_of_the_linear_program_with_its_proof(metric, more, cost) -> None:
    for k in range(30):
        x, y, a, b = problem(k)
        r = so.solve_exact(so.PointCloud(x[:, None], y[:, None], metric, **more), a, b)
        assert r.method == "exact: sorting"
        assert r.status is so.Status.OPTIMAL
        C = cost(x[:, None], y)
        size = 1 + abs(C).max()
        best = float(so.solve_exact(C, a, b).value)
        assert abs(float(r.value) - best) <= 1e-14 * size
        assert abs(float(r.gap)) <= 1e-13 * size
        # not by a digit
        assert (r.f.numpy()[:, None] + r.g.numpy() <= C).all()
        P = r.plan.numpy()
        assert abs((P * C).sum() - best) <= 1e-14 * size
        assert abs(P.sum(1) - a).sum() + abs(P.sum(0) - b).sum() <= 1e-14
        assert float(r.marginal_error) <= 1e-15


def test_its_methods_are_those_of_a_stored_plan() -> None:
    x, y, a, b = problem(4)
    r = so.solve_exact(so.PointCloud(x[:, None], y[:, None]), a, b)
    v = torch.randn(len(y), 2, dtype=torch.float64)
    w = torch.randn(len(x), dtype=torch.float64)
    torch.testing.assert_close(r.apply(v), r.plan @ v)
    torch.testing.assert_close(r.apply_transpose(w), r.plan.T @ w)
    mass = r.plan.sum(1, keepdim=True)
    mean = torch.where(mass > 0, r.plan @ v / mass, 0.0)
    torch.testing.assert_close(r.barycentric(v), mean)
    torch.testing.assert_close(r.round(), r.plan)
    torch.testing.assert_close(r.log_plan.exp(), r.plan)
    assert abs(float(r.certificate().gap)) < 1e-12


def test_batches_share_points_or_do_not() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3, 6, 1, dtype=torch.float64, generator=random)
    y = torch.randn(5, 1, dtype=torch.float64, generator=random)
    a = torch.rand(2, 1, 6, dtype=torch.float64, generator=random)
    a = a / a.sum(-1, keepdim=True)
    r = so.solve_exact(so.PointCloud(x, y), a)
    assert r.value.shape == (2, 3)
    for k in np.ndindex(2, 3):
        one = so.solve_exact(torch.cdist(x[k[1]], y) ** 2, a[k[0], 0])
        torch.testing.assert_close(r.value[k], one.value)
    shared = so.solve_exact(so.PointCloud(x[0], y), a[:, 0])
    torch.testing.assert_close(shared.value, r.value[:, 0])


@pytest.mark.parametrize(("metric", "power"), [("sqeuclidean", 1), ("euclidean", 1.5), ("dot", 1)])
def test_derivatives(metric, power) -> None:
    x, y, a, _ = (torch.from_numpy(t).requires_grad_() for t in problem(8))
    a = (a.detach() + 0.1).requires_grad_()

    def value(x, y, a):
        cloud = so.PointCloud(x[:, None], y[:, None], metric, power=power)
        return so.solve_exact(cloud, a / a.sum()).value

    assert torch.autograd.gradcheck(value, (x, y, a))
    r = so.solve_exact(so.PointCloud(x[:, None], y[:, None]))
    with pytest.raises(RuntimeError, match="an optimal plan jumps"):
        r.plan.sum().backward()


def test_a_hundred_thousand_points_are_proved() -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    a = rng.random(n)
    # a few far off cost the others no digits, and sums of equal weights drift
    x, y = rng.normal(size=(n, 1)), rng.normal(size=(n // 2, 1))
    x[:2] *= 1e5
    r = so.solve_exact(so.PointCloud(x, y), a / a.sum())
    assert r.status is so.Status.OPTIMAL
    assert float(r.gap) <= 1e-11 * float(r.value)
    assert r.coupling.P._nnz() <= n + n // 2 - 1


def test_other_costs_are_not_taken_for_it() -> None:
    x, y, a, b = problem(6)
    plane = so.PointCloud(np.c_[x, x], np.c_[y, y])
    root = so.PointCloud(x[:, None], y[:, None], "euclidean", power=0.5)
    for cost in (plane, root):
        assert so.solve_exact(cost, a, b).method != "exact: sorting"
    named = so.solve_exact(so.PointCloud(x[:, None], y[:, None]), a, b, engine="highs")
    assert named.method == "exact: highs"
    best = float(so.solve_exact(abs(x[:, None] - y) ** 0.5, a, b).value)
    assert float(so.solve_exact(root, a, b).value) == pytest.approx(best, abs=1e-13)


def test_points_without_weight_carry_exactly_nothing():
    x = torch.tensor([1.0, -1, 1e9, 1e9, 1e9])[:, None].double()
    y = torch.tensor([-1.0, -2, -2, 1e9, 1e9, 1e9])[:, None].double()
    r = so.solve_exact(so.PointCloud(x, y), mask=(2, 3))
    assert not r.plan[2:].any()
    assert not r.plan[:, 3:].any()
    rng = np.random.default_rng(0)
    for k in range(60):
        n, m = rng.integers(2, 9, 2)
        a, b = rng.random(n) * (rng.random(n) > 0.4), rng.random(m) * (rng.random(m) > 0.4)
        a[0] += a.sum() == 0
        b[0] += b.sum() == 0
        a, b = a / a.sum(), b / b.sum()
        x, y = rng.normal(size=(n, 1)), rng.normal(size=(m, 1))
        r = so.solve_exact(so.PointCloud(x, y), a, b)
        assert r.status is so.Status.OPTIMAL, k
        assert not r.plan[a == 0].any(), k
        assert not r.plan[:, b == 0].any(), k
