"""Cuturi's distance: the published bisection, closed forms, edges, shapes, bounds and work."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from derived.bisection import information, published, random
from hypothesis import given
from hypothesis import strategies as st

import sinkhorn_ot as so
from sinkhorn_ot.exact import engines


INF = math.inf
distance = so.sinkhorn_distance


def off_by(seeds) -> float:
    """Return the worst relative difference from the published method."""
    worst = 0.0
    for seed in seeds:
        C, a, b, alpha = random(seed)
        value, miss = published(C, a, b, alpha)
        assert abs(miss) < 1e-12
        r = distance(C, a, b, alpha=alpha, on_fail="raise")
        worst = max(worst, abs(float(r.value) - value) / value)
    return worst


@pytest.mark.slow(3)
@pytest.mark.parametrize("start", range(0, 100, 20))
def test_it_is_what_the_published_bisection_finds(start: int):
    worst = off_by(range(start, start + 20))
    print(f"problems {start} to {start + 19}: worst relative difference {worst:.2e}")
    assert worst < 1e-9


def test_two_points_have_a_closed_form():
    """Of plans of two points onto themselves there is one family: who leaves, from 0 to a half."""
    C = np.array([[0.0, 3.0], [3.0, 0.0]])
    for leave in (0.49, 0.3, 0.1, 1e-3, 1e-6):
        P = np.array([[1 - leave, leave], [leave, 1 - leave]]) / 2
        r = distance(C, alpha=information(P, np.full(2, 0.5), np.full(2, 0.5)))
        assert float(r.value) == pytest.approx(3 * leave, rel=1e-9)
        assert float(r.reg) == pytest.approx(3 / math.log(1 / leave - 1), rel=1e-6)
        assert float(r.lam) == pytest.approx(1 / float(r.reg), rel=1e-12)
        np.testing.assert_allclose(r.plan.numpy(), P, atol=1e-9)
        assert r.active


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5, 6, 8, 10])
def test_bounds_and_plan_say_the_same(seed: int):
    C, a, b, alpha = random(seed, share=0.9)
    r = distance(C, a, b, alpha=alpha, on_fail="raise")
    P = r.plan.numpy()
    assert np.abs(P.sum(1) - a).sum() <= 1e-9
    assert np.abs(P.sum(0) - b).sum() <= 2e-9
    assert information(P, a, b) == pytest.approx(alpha, rel=1e-6)
    assert float(r.kl) == pytest.approx(information(P, a, b), rel=1e-7)
    assert float(r.value_linear) == pytest.approx((P * C).sum(), rel=2e-9)
    assert 0 <= float(r.gap) <= 1e-9 * float(r.value)
    assert float(r.value) <= float(r.value_linear) * (1 + 1e-9)
    # the plan is the entropic one at that reg, and the multiplier is the slope
    assert float(so.solve(C, a, b, float(r.reg)).value_linear) == pytest.approx(
        float(r.value), rel=1e-8
    )
    h = 1e-4 * alpha
    up, down = (float(distance(C, a, b, alpha=alpha + t).value) for t in (h, -h))
    assert float(r.reg) == pytest.approx((down - up) / (2 * h), rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_it_falls_from_independence_to_the_optimum_and_is_convex(seed: int):
    C, a, b, _ = random(seed)
    exact = so.solve_exact(C, a, b)
    most = information(exact.plan.numpy(), a, b)
    alphas = most * np.linspace(0, 1.25, 26)
    r = distance(C, a, b, alpha=alphas, on_fail="raise")
    d = r.value.numpy()
    assert d[0] == pytest.approx(a @ C @ b, rel=1e-13)
    assert d[-1] == pytest.approx(float(exact.value_linear), rel=1e-12)
    assert (np.diff(d) <= 1e-9 * d[0]).all()
    assert (np.diff(d, 2) >= -2e-9 * d[0]).all()
    assert not r.active[-1]
    assert r.active[:10].all()


def test_zero_is_independence():
    C, a, b, _ = random(5)
    r = distance(C, a, b, alpha=0)
    np.testing.assert_allclose(r.plan.numpy(), np.outer(a, b), rtol=1e-14)
    assert (float(r.kl), float(r.gap), float(r.reg), float(r.lam)) == (0, 0, INF, 0)
    assert r.status is so.Status.CONVERGED
    assert r.active


@pytest.mark.parametrize("alpha", [1e-300, 1e-20, 1e-16, 1e-12, 1e-10, 1e-8])
def test_next_to_zero_it_falls_as_a_root(alpha: float):
    C, a, b, _ = random(0)
    D = C - (C @ b)[:, None] - (a @ C)[None, :] + a @ C @ b
    deviation = math.sqrt(a @ D**2 @ b)
    fall = a @ C @ b - float(distance(C, a, b, alpha=alpha, on_fail="raise").value)
    assert fall == pytest.approx(math.sqrt(2 * alpha) * deviation, rel=2e-3, abs=1e-15)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alpha", [INF, "entropy", "plan"])
def test_where_it_does_not_bind_it_is_exact_transport(seed: int, alpha):
    C, a, b, _ = random(seed)
    exact = so.solve_exact(C, a, b)
    bounds = {
        "entropy": min(-(w * np.log(w)).sum() for w in (a, b)),
        "plan": information(exact.plan.numpy(), a, b) * 1.01,
    }
    r = distance(C, a, b, alpha=bounds.get(alpha, alpha), on_fail="raise")
    assert float(r.value) == pytest.approx(float(exact.value_linear), rel=1e-9)
    assert float(r.value_linear) == pytest.approx(float(exact.value_linear), rel=1e-9)
    assert not r.active
    assert r.status is so.Status.OPTIMAL
    assert (float(r.reg), float(r.lam)) == (0, INF)


@pytest.mark.parametrize("factor", [1 - 1e-6, 1 - 1e-9, 1, 1 + 1e-9, 1 + 1e-6])
def test_about_the_end_of_the_path_the_value_is_right_on_either_side(factor: float):
    C, a, b, alpha = random(4, share=factor)
    exact = float(so.solve_exact(C, a, b).value_linear)
    assert float(distance(C, a, b, alpha=alpha, on_fail="raise").value) == pytest.approx(
        exact, rel=1e-5 if factor < 1 else 1e-9
    )


def test_ties_end_the_path_before_the_plan_of_an_engine():
    """An engine's plan is a corner; the path ends at the most even of the optimal plans."""
    C = np.abs(np.arange(8.0)[:, None] - np.arange(8.0) - 8)
    rng = np.random.default_rng(0)
    C[3:] += rng.integers(0, 2, (5, 8))
    a, b = rng.dirichlet(np.ones(8)), rng.dirichlet(np.ones(8))
    exact = so.solve_exact(C, a, b)
    corner = information(exact.plan.numpy(), a, b)
    end = float(distance(C, a, b, alpha=corner * 0.999).kl)
    assert end < 0.9 * corner
    for alpha in (1.01 * end, 0.95 * corner):
        r = distance(C, a, b, alpha=alpha, on_fail="raise")
        assert float(r.value) == pytest.approx(float(exact.value_linear), rel=1e-9)
        assert not r.active
        assert float(r.kl) <= alpha * (1 + 1e-9)


@pytest.mark.parametrize(
    "C",
    [
        np.full((3, 5), 2.5),
        np.zeros((3, 5)),
        np.arange(3.0)[:, None] + np.arange(5.0) ** 2,
        np.random.default_rng(0).random((1, 5)),
        np.random.default_rng(0).random((5, 1)),
        np.ones((1, 1)),
    ],
    ids=["constant", "zero", "a row and a column", "1 x m", "n x 1", "1 x 1"],
)
@pytest.mark.parametrize("alpha", [0.0, 0.1, INF])
def test_where_every_plan_costs_the_same(C: np.ndarray, alpha: float):
    r = distance(C, alpha=alpha, on_fail="raise")
    assert float(r.value) == pytest.approx(C.mean(), rel=1e-14)
    assert float(r.value_linear) == pytest.approx(C.mean(), rel=1e-14)
    assert float(r.kl) == 0
    assert not r.active
    assert torch.allclose(r.plan, torch.full(C.shape, 1 / C.size, dtype=torch.float64))


def test_a_cost_that_is_almost_a_row_and_a_column():
    rng = np.random.default_rng(0)
    E = rng.random((6, 7))
    C = rng.random(6)[:, None] + rng.random(7) + 1e-4 * E
    base = C.mean() - 1e-4 * E.mean()
    expected = 1e-4 * float(distance(E, alpha=0.3).value)
    assert float(distance(C, alpha=0.3).value) - base == pytest.approx(expected, rel=1e-8)


def test_no_divergence_is_below_zero_beside_weights_below_tol():
    C = np.array([[0.0578, 0.8577], [0.7252, 0.0578], [0.0578, 0.8117]])
    a, b = np.array([1 - 6.3e-4 - 3.2e-9, 3.2e-9, 6.3e-4]), np.array([1 - 3e-10, 3e-10])
    for alpha in (1e-9, 6.8e-9, 5e-8):
        r = distance(C, a, b, alpha=alpha, on_fail="ignore")
        assert 0 <= float(r.kl) <= 2e-7


@pytest.mark.parametrize("alpha", [2e-9, 5e-9, 1.2e-8])
@pytest.mark.parametrize("weight", [3e-10, 5.5e-10])
def test_a_row_below_tol_is_not_missed_as_a_whole(weight: float, alpha: float):
    """Nothing of it would be within tol, and leave the divergence unknown."""
    costs = [0.901, 0.433, 0.201, 0.538, 0.982, 0.659, 1.14, 0.228, 0.231, 0.197]
    others = [1.72, 1.25, 1.02, 1.36, 1.80, 1.48, 1.96, 1.05, 1.05, INF]
    a, b = np.array([1 - weight, weight]), np.full(10, 0.1)
    r = distance(np.array([costs, others]), a, b, alpha=alpha, on_fail="raise")
    P = r.plan.numpy()
    np.testing.assert_allclose(P.sum(1), a, rtol=0.1)
    assert float(r.kl) == pytest.approx(information(P, a, b), rel=0.1)
    assert float(r.kl) <= alpha * (1 + 1e-6)


def test_a_row_that_underflows_is_an_error():
    x = np.array([-1.0, 0.9, -0.8])
    y = np.linspace(1.0, 1.05, 38)
    a = np.array([1 - 2.98606e-10 - 8.70095e-10, 2.98606e-10, 8.70095e-10])
    for alpha in (2e-9, 2.12e-8, 1e-7):
        r = distance(1600 * np.outer(x, y), a, None, alpha=alpha, on_fail="ignore")
        P = r.plan.numpy()
        off = np.abs(P.sum(1) - a).sum() + np.abs(P.sum(0) - 1 / 38).sum()
        assert off <= float(r.marginal_error) + 1e-10
        assert bool(r.converged) == (off <= 1.01e-9)
        assert float(r.kl) == pytest.approx(information(P, a, np.full(38, 1 / 38)), abs=1e-9)


def test_where_rounding_ends_the_path_exact_transport_is_asked():
    x, y = torch.rand(2, 4, dtype=torch.float64)
    # all plans cost the same, but for what a large constant leaves of it
    C = x[:, None] + y + 1e6
    b = torch.tensor([0.3, 0.3, 0.3, 0.1], dtype=torch.float64)
    r = distance(C, None, b, alpha=1.2)
    assert r.converged
    assert float(r.kl) <= 1.2
    assert float(r.value) == pytest.approx(1e6 + float(x.mean() + b @ y), abs=1e-9)
    assert int(r.n_iter) < 3000


def test_points_without_weight_change_nothing():
    C, a, b, alpha = random(4, share=0.4)
    wide = np.random.default_rng(1).random((len(a) + 2, len(b) + 1))
    wide[1:-1, 1:] = C
    r = distance(C, a, b, alpha=alpha)
    z = distance(wide, np.pad(a, 1), np.pad(b, (1, 0)), alpha=alpha)
    assert float(z.value) == pytest.approx(float(r.value), rel=1e-10)
    torch.testing.assert_close(z.plan[1:-1, 1:], r.plan, atol=1e-9, rtol=0)
    assert float(z.plan[0].abs().sum() + z.plan[-1].abs().sum() + z.plan[:, 0].abs().sum()) == 0


@pytest.mark.parametrize("off", [-100.0, 100.0])
def test_points_without_weight_may_be_out_of_range(off: float):
    C = torch.rand(2, 6, 4, dtype=torch.float64)
    b = torch.tensor([[0.3, 0.3, 0.4, 0.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    few = distance(C[0, :, :3], None, b[0, :3], alpha=0.8)
    C[0, :, 3] += off
    both = distance(C, None, b, alpha=0.8)
    assert both.converged.all()
    assert float(both.value[0]) == pytest.approx(float(few.value), rel=1e-8)
    assert float(both.kl[0]) == pytest.approx(float(few.kl), rel=1e-6)


@pytest.mark.parametrize("mass", [1e-6, 7.0, 3e5])
def test_masses_other_than_one(mass: float):
    C, a, b, alpha = random(9, share=0.5)
    one, r = distance(C, a, b, alpha=alpha), distance(C, mass * a, mass * b, alpha=alpha)
    assert float(r.value) == pytest.approx(mass * float(one.value), rel=1e-9)
    assert float(r.value_linear) == pytest.approx(mass * float(one.value_linear), rel=1e-9)
    assert float(r.kl) == pytest.approx(float(one.kl), rel=1e-7)
    torch.testing.assert_close(r.plan, mass * one.plan, rtol=1e-6, atol=1e-12 * mass)
    for alpha in (0, INF):
        one, r = distance(C, a, b, alpha=alpha), distance(C, mass * a, mass * b, alpha=alpha)
        assert float(r.value) == pytest.approx(mass * float(one.value), rel=1e-12)
        torch.testing.assert_close(r.plan, mass * one.plan, rtol=1e-9, atol=1e-14 * mass)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_units_of_the_cost_do_not_matter(scale: float):
    C, a, b, alpha = random(4, share=0.5)
    one, r = distance(C, a, b, alpha=alpha), distance(scale * C, a, b, alpha=alpha)
    assert float(r.value) == pytest.approx(scale * float(one.value), rel=1e-9)
    assert float(r.reg) == pytest.approx(scale * float(one.reg), rel=1e-6)


def test_a_constant_added_to_the_cost_is_added_to_the_value():
    C, a, b, alpha = random(4, share=0.5)
    one, r = distance(C, a, b, alpha=alpha), distance(C + 1e6, a, b, alpha=alpha)
    assert float(r.value) - 1e6 == pytest.approx(float(one.value), abs=1e-9)
    assert float(r.kl) == pytest.approx(alpha, rel=1e-6)


def test_it_does_not_tell_source_from_target():
    C, a, b, alpha = random(12, share=0.6)
    one, r = distance(C, a, b, alpha=alpha), distance(C.T, b, a, alpha=alpha)
    assert float(r.value) == pytest.approx(float(one.value), rel=1e-9)
    torch.testing.assert_close(r.plan, one.plan.mT, atol=1e-8, rtol=0)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 0.5]))
def test_of_a_metric_it_keeps_the_triangle(seed: int, alpha: float):
    """Theorem 1 of the paper, for all alpha; at zero of any negative definite cost."""
    rng = np.random.default_rng(seed)
    x = rng.random((5, 2))
    M = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    w = rng.dirichlet(np.ones(5), 3)
    d = distance(M, w[:, None], w[None, :], alpha=alpha).value.numpy()
    np.testing.assert_allclose(d, d.T, rtol=1e-8)
    for i, j, k in itertools.permutations(range(3)):
        assert d[i, j] <= d[i, k] + d[k, j] + 1e-9


def test_a_batch_is_its_problems():
    rng = np.random.default_rng(3)
    C = rng.random((9, 11))
    a, b = rng.dirichlet(np.ones(9), (4, 1)), rng.dirichlet(np.ones(11), 3)
    a[2, 0, :3] = 0
    a /= a.sum(-1, keepdims=True)
    alpha = np.array([0.0, 0.3, INF])
    r = distance(C, a, b, alpha=alpha, on_fail="raise")
    assert r.value.shape == r.n_iter.shape == r.active.shape == (4, 3)
    assert r.plan.shape == (4, 3, 9, 11)
    assert r.problem.shared
    for i, j in itertools.product(range(4), range(3)):
        one = distance(C, a[i, 0], b[j], alpha=alpha[j])
        assert float(r.value[i, j]) == pytest.approx(float(one.value), rel=1e-9)
        torch.testing.assert_close(r.plan[i, j], one.plan, atol=2e-8, rtol=0)
        assert r.active[i, j] == one.active
        assert r.statuses[3 * i + j] is one.status


def test_a_batch_of_costs_and_large_batches_in_parts(monkeypatch: pytest.MonkeyPatch):
    C = torch.rand(5, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = distance(C, alpha=0.2)
    monkeypatch.setattr("sinkhorn_ot.derived.distance.moments._HELD", 2 * 24)
    parts = distance(C, alpha=0.2)
    torch.testing.assert_close(parts.value, whole.value, rtol=1e-12, atol=0)
    for k in range(5):
        one = distance(C[k], alpha=0.2)
        assert float(whole.value[k]) == pytest.approx(float(one.value), rel=1e-9)


def test_each_problem_ends_by_itself():
    C, a, b, alpha = random(4, share=0.999)
    r = distance(C, a, b, alpha=[1e-9, alpha])
    assert int(r.n_iter[0]) == int(distance(C, a, b, alpha=1e-9).n_iter)
    assert int(r.n_iter[1]) > 3 * int(r.n_iter[0])


def test_products_serve_many_columns(monkeypatch: pytest.MonkeyPatch):
    C, a, b, alpha = random(4, share=0.8)
    direct = distance(C, a, b, alpha=alpha)
    monkeypatch.setattr("sinkhorn_ot.derived.distance.moments._DIRECT", 1)
    r = distance(C, a, b, alpha=alpha, on_fail="raise")
    assert float(r.value) == pytest.approx(float(direct.value), rel=1e-9)


def test_points_need_no_matrix():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 40, 3, dtype=torch.float64, generator=generator)
    r = distance(so.PointCloud(x, y), alpha=0.7)
    dense = distance(torch.cdist(x, y) ** 2, alpha=0.7)
    assert float(r.value) == pytest.approx(float(dense.value), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("alpha", [0.0, 0.3, INF])
def test_work_is_in_float64_and_answers_in_the_callers_dtype(dtype: torch.dtype, alpha: float):
    C = torch.rand(6, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    r, wide = distance(C, alpha=alpha), distance(C.double(), alpha=alpha)
    assert r.value.dtype == r.plan.dtype == r.reg.dtype == r.kl.dtype == torch.float32
    assert float(r.value) == pytest.approx(float(wide.value), rel=1e-7)
    torch.testing.assert_close(r.plan.double(), wide.plan, rtol=1e-6, atol=1e-9)
    assert float(r.gap) <= 1e-9


def ratio(seed: int) -> float:
    """Return the work for a distance over that of one cold solve at the reg that it found."""
    C, a, b, alpha = random(seed, share=(0.01, 0.3, 0.8, 0.99, 0.9999)[seed % 5])
    r = distance(C, a, b, alpha=alpha)
    if float(r.reg) == 0:
        return 0.0
    return int(r.n_iter) / int(so.solve(C, a, b, float(r.reg), tol=1e-9, on_fail="ignore").n_iter)


def test_it_takes_the_work_of_few_solves():
    ratios = [ratio(seed) for seed in range(60)]
    print(
        f"work over that of one cold solve: median {np.median(ratios):.2f}, most {max(ratios):.2f}"
    )
    assert max(ratios) <= 8
    assert np.median(ratios) <= 3


def test_what_is_not_reached_is_told():
    C, a, b, alpha = random(0, share=0.9)
    with pytest.warns(so.ConvergenceWarning, match="Ran out of iterations.*Reached a gap of"):
        r = distance(C, a, b, alpha=alpha, max_iter=9)
    assert r.status is so.Status.MAX_ITER
    assert not r.converged
    # bounds hold all the same
    truth = float(distance(C, a, b, alpha=alpha).value)
    assert float(r.value) <= truth
    with pytest.raises(so.ConvergenceError) as caught:
        distance(C, a, b, alpha=[alpha, 0.0], max_iter=9, on_fail="raise")
    assert isinstance(caught.value.result, so.SinkhornDistance)
    assert str(caught.value).startswith("1 of 2 problems did not converge. Ran out")
    assert not distance(C, a, b, alpha=alpha, max_iter=9, on_fail="ignore").converged


@pytest.mark.slow(6)
def test_what_rounding_decides_is_told():
    rng = np.random.default_rng(0)
    C = rng.random(6)[:, None] + rng.random(7) + 1e-13 * rng.random((6, 7))
    with pytest.warns(so.ConvergenceWarning, match="The error stopped falling"):
        r = distance(C, alpha=0.3)
    assert float(r.value) == pytest.approx(C.mean(), rel=1e-12)


def test_an_exact_plan_that_is_not_proved_is_told(monkeypatch: pytest.MonkeyPatch):
    C, a, b, _ = random(4)
    lazy = engines.ENGINES["network simplex"]
    for name in ("network simplex", "highs"):
        monkeypatch.setitem(engines.ENGINES, name, lambda C, a, b, most: lazy(C, a, b, 1))
    with pytest.warns(so.ConvergenceWarning) as caught:
        r = distance(C, a, b, alpha=INF)
    assert len(caught) == 1
    assert not r.converged


def test_it_says_in_one_line_what_it_is():
    C = np.array([[0.0, 3.0], [3.0, 0.0]])
    assert repr(distance(C, alpha=0)) == (
        "SinkhornDistance(batch=(), n=2, m=2, value=1.5, status=CONVERGED, gap=0)"
    )
    assert repr(distance(C, alpha=[0.0, INF])) == (
        "SinkhornDistance(batch=(2,), n=2, m=2, value=[1.5, 0], status=1 OPTIMAL, 1 CONVERGED, "
        "gap=[0, 0])"
    )


def test_the_plan_is_formed_when_it_is_asked_for():
    r = distance(np.eye(3), alpha=0.1)
    assert "plan" not in vars(r)
    assert r.plan is r.plan


C45 = torch.rand(4, 5, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpha": -1.0}, "alpha must be at least zero, got -1"),
        ({"alpha": math.nan}, "alpha must be at least zero, got nan"),
        ({"alpha": [0.1, -0.5]}, "alpha must be at least zero, got -0.5 at index 1"),
        ({"alpha": None}, "alpha must be one number, got None"),
        ({"alpha": "much"}, "alpha must be one number, got 'much'"),
        ({"alpha": True}, "alpha must be one number, got True"),
        (
            {"alpha": [0.1, 0.2], "a": torch.ones(3, 4) / 4, "b": torch.ones(5) / 5},
            "alpha and the problem must have leading dimensions that broadcast, got (2,) and (3,)",
        ),
        ({"tol": 0}, "tol must be a finite number above zero, got 0"),
        ({"max_iter": 0}, "max_iter must be a whole number of at least 1, got 0"),
        ({"on_fail": "cry"}, "on_fail must be one of 'warn', 'raise', 'ignore', got 'cry'"),
        (
            {"a": torch.full((4,), 0.25, dtype=torch.float64, requires_grad=True), "alpha": 10.0},
            "a must not require grad where alpha does not bind",
        ),
        ({"cost": C45 * math.nan}, "cost must be a number above -inf, got nan"),
        ({"a": -torch.ones(4)}, "a must be non-negative"),
        ({"a": torch.ones(4)}, "a and b must have the same total mass"),
    ],
)
def test_a_mistake_is_named(options: dict, text: str):
    with pytest.raises(ValueError, match=re.escape(text)):
        distance(**({"cost": C45, "alpha": 0.1} | options))


def test_arguments_stay_as_they_are():
    C, a, b, alpha = random(4, share=0.5)
    before = [t.copy() for t in (C, a, b)]
    distance(C, a, b, alpha=alpha)
    assert all((x == y).all() for x, y in zip(before, (C, a, b), strict=True))


def test_autocast_does_not_change_the_answer():
    C, a, b, alpha = random(4, share=0.5)
    r = distance(C, a, b, alpha=alpha)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = distance(C, a, b, alpha=alpha)
    assert float(again.value) == float(r.value)


@pytest.mark.gpu
def test_it_stays_on_the_device():
    C = torch.rand(2, 40, 50, generator=torch.Generator().manual_seed(0))
    here = distance(C, alpha=[0.0, 0.5])
    there = distance(C.cuda(), alpha=[0.0, 0.5])
    assert there.value.is_cuda
    assert there.plan.is_cuda
    torch.testing.assert_close(there.value.cpu(), here.value, rtol=1e-6, atol=0)
    assert not distance(C[0].cuda(), alpha=INF).active
