"""Penalties other than one KL number, bounds and a stated mass: a slow judge, limits and edges."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import ot
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.problem import make
from sinkhorn_ot.sweeps import choose, passes
from sinkhorn_ot.sweeps.reference import Reference


INF = math.inf
N, M, COUNT, REG = 7, 9, 14, 0.1
LOW, HIGH = torch.tensor([0.0, 0.05, 0.1]), torch.tensor([0.1, 0.2, INF])


def wanted(kind, f, w, one, other):
    """Return the marginal that a penalty wants at the price f, which falls as f rises."""
    if kind == "exact":
        return w + 0 * f
    if kind == "kl":
        with np.errstate(all="ignore"):
            soft = w * np.exp(-f / one)
        return np.where(one == 0, np.where(f < 0, INF, 0.0), np.where(one == INF, w, soft))
    if kind == "tv":
        return np.where(f > one, 0.0, np.where(f < -one, INF, w))
    if kind == "l2":
        return np.maximum(w - f / one, 0.0)
    return np.where(f < 0, other, one)


def answered(side, L, w, reg):
    """Return the price at which a marginal is what is wanted, by halving an interval."""
    kind, one, other = side
    if kind == "mass":
        low, high = np.full_like(one, -900.0), np.full_like(one, 900.0)
        for _ in range(80):
            mu = (low + high) / 2
            less = (w * np.exp(np.minimum(mu + L, 0.0))).sum(-1, keepdims=True) < one
            low, high = np.where(less, mu, low), np.where(less, high, mu)
        return reg * np.minimum(low, -L)
    low, high = np.full_like(L, -60.0), np.full_like(L, 60.0)
    for _ in range(80):
        f = (low + high) / 2
        less = w * np.exp(f / reg + L) < wanted(kind, f, w, one, other)
        low, high = np.where(less, f, low), np.where(less, high, f)
    return low


def judge(C, a, b, reg, rows, columns, sweeps=400):
    """Return plans by plain steps, each the root of its optimality condition."""
    g = np.zeros_like(b)
    for _ in range(sweeps):
        L = np.log((b[:, None, :] * np.exp((g[:, None, :] - C) / reg)).sum(-1))
        f = answered(rows, L, a, reg)
        L = np.log((a[:, :, None] * np.exp((f[:, :, None] - C) / reg)).sum(-2))
        before, g = g, answered(columns, L, b, reg)
        if np.abs(g - before).max() < 1e-14:
            break
    weight = a[:, :, None] * b[:, None, :]
    return weight * np.exp((f[:, :, None] + g[:, None, :] - C) / reg)


def drawn(count=COUNT, n=N, m=M, seed=0):
    rng = np.random.default_rng(seed)
    C, a, b = rng.random((count, n, m)), rng.random((count, n)) + 0.1, rng.random((count, m)) + 0.1
    a, b = a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)
    points = rng.choice([0.0, 0.02, 0.3, 2.0, INF], (count, n))
    return SimpleNamespace(C=C, a=a, b=b, points=points, low=0.7 * b, high=1.3 * b)


D = drawn()
# what is asked, and the same of rows and of columns in the words of the judge
KINDS: dict[str, Any] = {
    "tv": ({"unbalanced": so.TV(0.2)}, ("tv", 0.2, 0), ("tv", 0.2, 0)),
    "tv beside exact": ({"unbalanced": (None, so.TV(0.05))}, ("exact", 0, 0), ("tv", 0.05, 0)),
    "l2": ({"unbalanced": so.L2(2.0)}, ("l2", 2.0, 0), ("l2", 2.0, 0)),
    "l2 beside kl": ({"unbalanced": (so.L2(0.5), 0.4)}, ("l2", 0.5, 0), ("kl", 0.4, 0)),
    "kl per point": (
        {"unbalanced": (so.KL(D.points), None)},
        ("kl", D.points, 0),
        ("exact", 0, 0),
    ),
    "between": (
        {"unbalanced": (None, so.Between(D.low, D.high))},
        ("exact", 0, 0),
        ("between", D.low, D.high),
    ),
    "between both": (
        {"unbalanced": (so.Between(0.05, 0.3), so.Between(None, 0.12))},
        ("between", 0.05, 0.3),
        ("between", 0.0, 0.12),
    ),
    "mass": (
        {"mass": np.linspace(0.1, 0.99, COUNT)},
        ("mass", np.linspace(0.1, 0.99, COUNT)[:, None], 0),
        ("mass", np.linspace(0.1, 0.99, COUNT)[:, None], 0),
    ),
}
CASES = pytest.mark.parametrize("kind", KINDS)


def once(given, k):
    """Return what is asked of problem k of the batch."""

    def part(x):
        if isinstance(x, np.ndarray):
            return x[k]
        if isinstance(x, tuple):
            return tuple(map(part, x))
        if isinstance(x, (so.KL, so.TV, so.L2)):
            return type(x)(part(x.rho))
        return so.Between(part(x.low), part(x.high)) if isinstance(x, so.Between) else x

    return {name: part(x) for name, x in given.items()}


@CASES
def test_the_judge(kind):
    given, rows, columns = KINDS[kind]
    P = judge(D.C, D.a, D.b, REG, rows, columns)
    r = so.solve(D.C, D.a, D.b, REG, tol=1e-12, **given)
    assert r.converged.all()
    np.testing.assert_allclose(r.plan, P, atol=1e-9, rtol=0)
    assert float(r.gap.abs().max()) < 1e-10
    # bounds cost nothing, and the rest is what the penalties say it is
    alone = so.solve(D.C[3], D.a[3], D.b[3], REG, tol=1e-12, **once(given, 3))
    np.testing.assert_allclose(alone.plan, P[3], atol=1e-9, rtol=0)
    assert float(alone.value) == pytest.approx(objective(P[3], 3, rows, columns), abs=1e-9)


def objective(P, k, rows, columns):
    """Return what the plan of problem k costs."""
    weight = D.a[k][:, None] * D.b[k]
    value = (P * D.C[k]).sum() + REG * (P * np.log(P / weight) - P + weight).sum()
    for p, w, (kind, one, _) in ((P.sum(1), D.a[k], rows), (P.sum(0), D.b[k], columns)):
        rho = one[k] if isinstance(one, np.ndarray) else one
        if kind == "tv":
            value += rho * np.abs(p - w).sum()
        elif kind == "l2":
            value += rho / 2 * np.square(p - w).sum()
        elif kind == "kl":
            rho = np.where(np.isinf(rho), 0.0, rho)
            value += (rho * (p * np.log(p / w) - p + w)).sum()
    return value


@CASES
def test_turned_warm_counted_and_streamed(kind):
    given = once(KINDS[kind][0], 5)
    C, a, b = D.C[5], D.a[5], D.b[5]
    r = so.solve(C, a, b, 0.02, tol=1e-11, **given)
    sides = given.get("unbalanced")
    turned = given if not isinstance(sides, tuple) else {"unbalanced": sides[::-1]}
    t = so.solve(C.T, b, a, 0.02, tol=1e-11, **turned)
    torch.testing.assert_close(t.plan.T, r.plan, atol=1e-10, rtol=0)
    warm = so.solve(C, a, b, 0.02, tol=1e-9, init=r, **given)
    assert int(warm.n_iter) <= 2
    counted = so.solve(C, a, b, REG, n_iter=300, **given)
    torch.testing.assert_close(
        counted.plan, so.solve(C, a, b, REG, **given).plan, atol=1e-8, rtol=0
    )
    blocks = so.Streamed([torch.from_numpy(C[:4]), torch.from_numpy(C[4:])])
    read = so.solve(blocks, a, b, 0.02, tol=1e-11, **given)
    torch.testing.assert_close(read.plan, r.plan, atol=1e-10, rtol=0)


@CASES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_clouds_and_single_precision(kind, dtype):
    given = once(KINDS[kind][0], 2)
    torch.manual_seed(3)
    x, y = torch.rand(N, 2, dtype=dtype), torch.rand(M, 2, dtype=dtype)
    r = so.solve(so.PointCloud(x, y), D.a[2], D.b[2], 0.05, **given)
    assert r.converged
    assert r.plan.dtype == dtype
    C = torch.cdist(x.double(), y.double()).square()
    truth = so.solve(C, D.a[2], D.b[2], 0.05, tol=1e-12, **given)
    bound = 1e-9 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(r.plan.double(), truth.plan, atol=10 * bound, rtol=0)


@pytest.mark.parametrize("rho", [INF, 1e3])
@pytest.mark.parametrize("kind", [so.TV, so.L2, so.KL])
def test_strong_penalties_are_exact_marginals(kind, rho):
    given = kind(torch.full((N,), rho)), kind(torch.full((M,), rho))
    exact = so.solve(D.C[0], D.a[0], D.b[0], 0.03, tol=1e-12)
    r = so.solve(D.C[0], D.a[0], D.b[0], 0.03, unbalanced=given, tol=1e-12)
    # only the price of total variation is exact from a strength on
    near = 1e-10 if rho == INF or kind is so.TV else 1e-3
    torch.testing.assert_close(r.plan, exact.plan, atol=near, rtol=0)


def test_tight_and_absent_bounds_and_a_mass_of_all():
    p, C, a, b = D, D.C[1], D.a[1], D.b[1]
    exact = so.solve(C, a, b, 0.03, tol=1e-12)
    for given in ({"unbalanced": (None, so.Between(b, b))}, {"mass": 1.0}, {"mass": b.sum()}):
        r = so.solve(C, a, b, 0.03, tol=1e-12, **given)
        torch.testing.assert_close(r.plan, exact.plan, atol=1e-10, rtol=0)
    free = so.solve(C, a, b, 0.03, unbalanced=(None, 0))
    for side in (so.Between(), so.Between(0, INF), so.KL(np.zeros(M)), so.TV(0), so.L2(0)):
        r = so.solve(C, a, b, 0.03, unbalanced=(None, side), tol=1e-12)
        torch.testing.assert_close(r.plan, free.plan, atol=1e-12, rtol=0)
        assert float(r.value) == pytest.approx(float(free.value), abs=1e-12)
        assert abs(float(r.gap)) < 1e-12
    assert p.C.shape == (COUNT, N, M)


def test_rounding_makes_no_bound_impossible():
    C, a, b = D.C[1], D.a[1], torch.from_numpy(D.b[1])
    exact = so.solve(C, a, b, 0.05)
    lent = b.float().double() * (1 - 1e-8)
    given: list[dict[str, Any]] = [
        {"unbalanced": (None, so.Between(None, lent))},
        {"unbalanced": (None, so.Between(b * (1 + 1e-8)))},
        {"unbalanced": (so.Between(a, a), so.Between(lent, lent))},
        {"mass": 1 + 1e-8},
    ]
    for asked in given:
        r = so.solve(C, a, b, 0.05, **asked)
        assert r.converged
        torch.testing.assert_close(r.plan, exact.plan, atol=1e-7, rtol=0)
    r = so.solve(C, a, b * (1 - 1e-8), 0.05, mass=1.0)
    assert r.converged


def test_a_number_is_a_number():
    C, a, b = D.C[1], D.a[1], D.b[1]
    r = so.solve(C, a, b, 0.05, unbalanced=0.3, tol=1e-12)
    for given in (so.KL(0.3), so.KL(torch.tensor(0.3, dtype=torch.float64)), (so.KL(0.3), 0.3)):
        same = so.solve(C, a, b, 0.05, unbalanced=given, tol=1e-12)
        assert torch.equal(same.plan, r.plan)
        assert same.method == r.method
    points = so.KL(np.full(N, 0.3)), so.KL(np.full(M, 0.3))
    other = so.solve(C, a, b, 0.05, unbalanced=points, tol=1e-12)
    torch.testing.assert_close(other.plan, r.plan, atol=1e-10, rtol=0)
    assert float(other.value) == pytest.approx(float(r.value), abs=1e-11)
    assert float(other.dual_value) == pytest.approx(float(r.dual_value), abs=1e-11)


def test_pot_moves_the_same_mass():
    C, a, b = D.C[4], D.a[4], D.b[4]
    # its entropy knows no weights
    shifted = C - 0.2 * np.log(a[:, None] * b)
    P = ot.partial.entropic_partial_wasserstein(
        a, b, shifted, 0.2, m=0.6, numItermax=3000, stopThr=1e-16
    )
    r = so.solve(C, a, b, 0.2, mass=0.6, tol=1e-12)
    np.testing.assert_allclose(r.plan, P, atol=1e-9)


@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")
@pytest.mark.parametrize(("kind", "name"), [(so.L2, "l2"), (so.TV, "tv")])
def test_pot_pays_the_same_penalties(kind, name):
    C, a, b = D.C[4], D.a[4], D.b[4]
    P = ot.unbalanced.lbfgsb_unbalanced(
        a, b, C, 0.2, 0.5, reg_div="kl", regm_div=name, numItermax=20_000, stopThr=1e-16
    )
    r = so.solve(C, a, b, 0.2, unbalanced=kind(0.5), tol=1e-12)
    weight = a[:, None] * b
    theirs, ours = (
        (Q * C).sum()
        + 0.2 * (Q * np.log(Q / weight + 1e-300) - Q + weight).sum()
        + sum(
            0.5 * (np.abs(p - w).sum() if name == "tv" else np.square(p - w).sum() / 2)
            for p, w in ((Q.sum(1), a), (Q.sum(0), b))
        )
        for Q in (P, r.plan.numpy())
    )
    assert ours <= theirs + 1e-9
    # corners stop its steps
    if name == "l2":
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_no_empty_cluster():
    torch.manual_seed(0)
    scores = torch.randn(300, 6, dtype=torch.float64) + torch.tensor([4, 2, 0, 0, -2, -9.0])
    free = so.solve(-scores, reg=0.1, unbalanced=(None, 0))
    assert float(free.plan.sum(0).min()) < 1e-6
    r = so.solve(-scores, reg=0.1, unbalanced=(None, so.Between(0.05, 0.3)))
    sizes = r.plan.sum(0)
    assert r.converged
    assert float(sizes.min()) > 0.05 - 1e-9
    assert float(sizes.max()) < 0.3 + 1e-9
    # clusters within their bounds are chosen as they are liked
    inside = (sizes > 0.05 + 1e-6) & (sizes < 0.3 - 1e-6)
    assert inside.any()
    assert float(r.g[inside].abs().max()) < 1e-9


def test_slack_points_take_what_has_no_partner():
    x = torch.cartesian_prod(torch.arange(4.0), torch.arange(3.0)).double()
    y = torch.cat([x[:9] + 0.01, x[9:] + 20])
    C = torch.full((13, 13), 0.3, dtype=torch.float64)
    C[:12, :12] = torch.cdist(x, y).square()
    slack = so.KL(torch.tensor([INF] * 12 + [0.0]))
    r = so.solve(C, torch.ones(13), torch.ones(13), 0.05, unbalanced=slack)
    assert r.converged
    torch.testing.assert_close(r.plan[:12].sum(1), torch.ones(12).double(), atol=1e-8, rtol=0)
    assert (r.plan[:9, :9].argmax(1) == torch.arange(9)).all()
    assert (r.plan[9:12, 12] > 0.99).all()
    assert (r.plan[12, 9:12] > 0.99).all()


def test_zero_weights_and_forbidden_pairs():
    C, a, b = D.C[0].copy(), D.a[0].copy(), D.b[0].copy()
    a[2], b[4] = 0, 0
    few = np.delete(np.delete(C, 2, 0), 4, 1), np.delete(a, 2), np.delete(b, 4)
    bounds = np.where(b > 0, 0.05, 0)
    lonely = C.copy()
    lonely[3] = INF
    both = {
        "unbalanced": [so.TV(0.3), so.L2(2.0), (so.TV(0.2), so.Between(None, 0.2))],
        "mass": [0.4],
    }
    for name, asked in both.items():
        for given in asked:
            r = so.solve(C, a, b, 0.05, tol=1e-12, **{name: given})
            want = so.solve(*few, 0.05, tol=1e-12, **{name: given})
            got = np.delete(np.delete(r.plan.numpy(), 2, 0), 4, 1)
            np.testing.assert_allclose(got, want.plan, atol=1e-11)
            assert float(r.plan[2].sum() + r.plan[:, 4].sum()) == 0
            assert abs(float(r.gap)) < 1e-10
            assert torch.isfinite(r.f).all()
            assert torch.isfinite(r.g).all()
            # a point without partner stays, and its penalty is paid
            r = so.solve(lonely, a, b, 0.05, tol=1e-12, **{name: given})
            assert r.converged
            assert float(r.plan[3].sum()) == 0
            assert abs(float(r.gap)) < 1e-10
    r = so.solve(C, a / a.sum(), b / b.sum(), 0.05, unbalanced=(None, so.Between(bounds, None)))
    assert r.converged
    assert float(r.plan.sum(0)[b > 0].min()) > 0.05 - 1e-9


@pytest.mark.parametrize("rho", [1.0, 100.0])
@pytest.mark.parametrize("more", [1.01, 3.0])
def test_masses_that_differ_are_no_long_way(more, rho):
    """Plain steps would drift by the logarithm of the ratio, of a way of rho / reg."""
    C, a, b = D.C[0], D.a[0], more * D.b[0]
    kinds = (so.TV(rho), so.L2(100 * rho), (so.TV(rho), rho), (so.Between(0.05, 0.3), so.TV(rho)))
    for given in kinds:
        r = so.solve(C, a, b, 0.01, unbalanced=given)
        assert r.converged
        assert int(r.n_iter) < 400
        assert abs(float(r.gap)) < 1e-7 * rho
    # what both sides would rather destroy than move beyond their price
    r = so.solve(C, a, b, 0.01, unbalanced=so.TV(rho), tol=1e-10)
    assert float(r.f.abs().max()) <= rho + 1e-8
    assert float(r.g.abs().max()) <= rho + 1e-8
    assert float(r.plan.sum()) == pytest.approx(1.0, abs=1e-9)
    assert float(r.value) > rho * (more - 1)


def test_a_closed_point_is_left_out():
    high = np.full(M, 0.4)
    high[2] = 0
    r = so.solve(D.C[0], D.a[0], D.b[0], 0.05, unbalanced=(None, so.Between(None, high)), tol=1e-12)
    assert r.converged
    assert float(r.plan[:, 2].sum()) == 0
    assert abs(float(r.gap)) < 1e-10
    tiny = np.where(high > 0, high, 1e-12)
    near = so.solve(D.C[0], D.a[0], D.b[0], 0.05, unbalanced=(None, so.Between(0, tiny)))
    assert float(near.value) == pytest.approx(float(r.value), abs=1e-9)


def test_a_sharp_batch_ends_and_says_how():
    given = {"unbalanced": (so.TV(0.3), so.Between(None, 0.2))}
    r = so.solve(D.C, D.a, D.b, 3e-3, **given)
    assert r.converged.all()
    assert float(r.gap.abs().max()) < 1e-8
    one = so.solve(D.C[7], D.a[7], D.b[7], 3e-3, **given)
    torch.testing.assert_close(r.plan[7], one.plan, atol=1e-7, rtol=0)
    few = so.solve(D.C, D.a, D.b, 3e-3, max_iter=3, on_fail="ignore", **given)
    assert few.status is so.Status.MAX_ITER
    assert (few.marginal_error > 1e-6).any()


@CASES
def test_sweeps_agree_with_the_reference(kind):
    given = KINDS[kind][0]
    problem = make(D.C, D.a, D.b, REG, **given)
    v = problem.b.log() + 0.3 * torch.rand(problem.b.shape, dtype=torch.float64)
    u, s = Reference(problem).sweep(None, v)
    for sweep in (choose(problem, 1e-9), passes(problem, None)):
        for found, truth in zip(sweep.sweep(None, v), (u, s), strict=True):
            torch.testing.assert_close(found, truth, atol=1e-12, rtol=0)


BAD = {
    "bounds that cross": ({"unbalanced": so.Between(0.3, 0.2)}, "low of Between.*at most high"),
    "a bound below zero": ({"unbalanced": so.Between(-0.1)}, "low of Between.*at least zero"),
    "a bound that is nan": ({"unbalanced": so.Between(None, math.nan)}, "high of Between"),
    "an endless low": ({"unbalanced": so.Between(INF, INF)}, "low of Between must be finite"),
    "too much asked": (
        {"unbalanced": (None, so.Between(0.2))},
        "that of b is at least 1.8 and that of a at most 1",
    ),
    "too little room": (
        {"unbalanced": (None, so.Between(None, 0.1))},
        "that of a is at least 1 and that of b at most 0.9",
    ),
    "rows that need more": (
        {"unbalanced": (so.Between(0.2), so.Between(None, 0.1))},
        "that of a is at least 1.4 and that of b at most 0.9",
    ),
    "a price below zero": ({"unbalanced": so.TV(-1)}, "rho of TV must be at least zero, got -1$"),
    "prices below zero": (
        {"unbalanced": (None, so.TV(-np.ones(M)))},
        "rho of TV must be at least zero, got -1 at index 0$",
    ),
    "a price that is nan": ({"unbalanced": so.L2(math.nan)}, "rho of L2 must be at least zero"),
    "too few prices": ({"unbalanced": so.KL(np.ones(3))}, r"rho of KL.*shape \(..., 7\).*\(3,\)"),
    "prices of no batch": (
        {"unbalanced": so.KL(np.ones((5, N)))},
        r"rho of KL.*leading dimensions are \(\)",
    ),
    "no price": ({"unbalanced": so.TV(None)}, "rho of TV must be given"),
    "a word": ({"unbalanced": so.TV("much")}, "rho of TV must"),
    "three penalties": ({"unbalanced": (so.TV(1),) * 3}, "one penalty or two"),
    "a class": ({"unbalanced": so.TV}, r"got the class TV: give it numbers, such as TV\(0.1\)"),
    "mass and a penalty": ({"unbalanced": so.TV(1), "mass": 0.5}, "mass must not be given with"),
    "more than there is": ({"mass": 1.01}, "mass must be at most what a has.*1"),
    "no mass": ({"mass": 0}, "mass must be finite and above zero, got 0$"),
    "negative mass": ({"mass": -0.5}, "mass must be finite and above zero, got -0.5$"),
    "mass that is nan": ({"mass": math.nan}, "mass must be finite and above zero, got nan$"),
    "endless mass": ({"mass": INF}, "mass must be finite and above zero, got inf$"),
    "masses of no batch": (
        {"mass": [0.5]},
        r"mass must be one number, for there is one problem, got shape \(1,\)",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input(kind):
    given, said = BAD[kind]
    with pytest.raises(ValueError, match=said):
        so.solve(D.C[0], D.a[0], D.b[0], 0.1, **given)


def test_more_bad_input():
    C, a, b = D.C[0].copy(), D.a[0], D.b[0]
    with pytest.raises(ValueError, match="mass must be at most what b has"):
        so.solve(C, 2 * a, b, 0.1, mass=1.5)
    w = np.where(np.arange(M) == 1, 0, b)
    with pytest.raises(ValueError, match="must be zero where there is no weight.*point 1"):
        so.solve(C, a, w / w.sum(), 0.1, unbalanced=(None, so.Between(0.01)))
    C[:, 3] = INF
    with pytest.raises(ValueError, match="column 3 has positive b but only infinite costs"):
        so.solve(C, a, b, 0.1, unbalanced=(None, so.Between(0.01)))
    with pytest.raises(ValueError, match="mass must be at most what b has and can move"):
        so.solve(C, a, b, 0.1, mass=0.9999)
    with pytest.raises(ValueError, match="needs exact marginals, got unbalanced=\\(TV"):
        so.solve(D.C[0], a, b, 0.1, unbalanced=so.TV(1), method="newton")
    with pytest.raises(ValueError, match="needs exact marginals, got mass=0.5$"):
        so.solve(D.C[0], a, b, 0.1, mass=0.5, method="newton")
    for what in ("round", "certificate"):
        with pytest.raises(ValueError, match="needs exact marginals, got mass=0.5$"):
            getattr(so.solve(D.C[0], a, b, 0.1, mass=0.5), what)()
    with pytest.raises(ValueError, match=r"one per problem, shape \(14,\), got shape \(3,\)"):
        so.solve(D.C, D.a, D.b, 0.1, mass=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="above zero, got -2 at index 1$"):
        so.solve(D.C[:2], a, b, 0.1, mass=[0.1, -2])


ASIDE = {
    "KL": 1.0,
    "KL per point": so.KL(np.linspace(0, 1, M)),
    "TV": so.TV(0.5),
    "L2": so.L2(2.0),
    "free": 0.0,
    "bounds": so.Between(None, 0.3),
}


@pytest.mark.parametrize("other", ASIDE.values(), ids=ASIDE)
def test_a_side_of_closed_points_leaves_the_other_where_it_is(other):
    """Nothing moves, so that the value is what all the weights cost, and so is the dual."""
    for turned in (False, True):
        C, a = D.C[:2].swapaxes(1, 2) if turned else D.C[:2], torch.from_numpy(D.a[:2])
        b = torch.from_numpy(D.b[:2]).requires_grad_()
        shut = so.Between(None, np.stack([np.zeros(N), np.ones(N)]))
        sides = [(a, shut), (b, other)][:: -1 if turned else 1]
        r = so.solve(C, *(w for w, _ in sides), 0.1, unbalanced=tuple(p for _, p in sides))
        assert float(r.detach().plan[0].sum()) == 0
        assert r.converged.all()
        assert float(r.gap.detach().abs().max()) < 1e-7
        w = D.b[0]
        assert float(r.value[0].detach()) == pytest.approx(price(other, w) + 0.1, rel=1e-9)
        (by,) = torch.autograd.grad(r.value[0], b)
        step = 1e-6 * w
        slope = (price(other, w + step) - price(other, w - step)) / 2 + 1e-7
        assert float((by[0] * torch.from_numpy(step)).sum()) == pytest.approx(slope, rel=1e-6)
    with pytest.raises(ValueError, match="that of b is at least 1 and that of a at most 0"):
        so.solve(D.C[0], D.a[0], D.b[0], 0.1, unbalanced=(so.Between(None, 0), None))


def price(penalty, w):
    """Return what weights cost of which nothing is moved."""
    if isinstance(penalty, (so.KL, so.TV)):
        return float((penalty.rho * w).sum())
    if isinstance(penalty, so.L2):
        return float((penalty.rho / 2 * w**2).sum())
    return 0.0 if isinstance(penalty, so.Between) else penalty * float(w.sum())


@CASES
def test_the_value_has_derivatives(kind):
    given = once(KINDS[kind][0], 6)
    random = torch.Generator().manual_seed(0)
    held = [*(torch.from_numpy(t[6]) for t in (D.C, D.a, D.b)), torch.tensor(0.05).double()]
    leaves = [t.clone().requires_grad_() for t in held]
    so.solve(*leaves, tol=1e-12, **given).value.backward()
    for leaf, t in zip(leaves, held, strict=True):
        way = torch.randn(t.shape, generator=random, dtype=torch.float64)
        ends = []
        for step in (1e-5, -1e-5):
            moved = [x + step * way if x is t else x for x in held]
            ends.append(float(so.solve(*moved, tol=1e-13, on_fail="ignore", **given).value))
        slope = (ends[0] - ends[1]) / 2e-5
        assert float((leaf.grad * way).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_points_and_weights_on_the_side_have_derivatives():
    x = torch.rand(N, 2, dtype=torch.float64)
    y = torch.rand(M, 2, dtype=torch.float64, requires_grad=True)
    r = so.solve(so.PointCloud(x, y), reg=0.05, mass=0.5, tol=1e-12)
    (by,) = torch.autograd.grad(r.value, y)
    torch.testing.assert_close(
        by, 2 * (r.detach().plan.sum(0)[:, None] * y - r.detach().plan.T @ x)
    )
    # a point without partner is paid for
    C = torch.from_numpy(D.C[0]).clone()
    C[3] = INF
    a = torch.from_numpy(D.a[0]).clone().requires_grad_()
    so.solve(C, a, D.b[0], 0.05, unbalanced=so.TV(0.3)).value.backward()
    assert float(a.grad[3]) == pytest.approx(0.3 + 0.05, abs=1e-9)


@pytest.mark.parametrize("given", [{"unbalanced": so.TV(1.0)}, {"mass": 0.5}], ids=str)
def test_other_gradients_are_refused(given):
    C = torch.from_numpy(D.C[0]).requires_grad_()
    r = so.solve(C, D.a[0], D.b[0], 0.1, **given)
    for what in ("plan", "f", "value_linear"):
        with pytest.raises(ValueError, match=f"{what} has no derivatives beside mass="):
            getattr(r, what)
    assert not r.detach().plan.requires_grad
    (by,) = torch.autograd.grad(r.value, C, create_graph=True)
    with pytest.raises(RuntimeError, match="value beside such penalties"):
        by.square().sum().backward()
    with pytest.raises(ValueError, match="n_iter must not be given where cost requires grad"):
        so.solve(C, D.a[0], D.b[0], 0.1, n_iter=3, **given)
    rho = torch.full((N,), 0.5, requires_grad=True)
    with pytest.raises(ValueError, match="rho of KL requires grad"):
        so.solve(D.C[0], D.a[0], D.b[0], 0.1, unbalanced=(so.KL(rho), None))
    r = so.solve(C.detach(), D.a[0], D.b[0], 0.1, **given)
    for what in (r.round, r.certificate):
        with pytest.raises(ValueError, match="needs exact marginals"):
            what()
    with pytest.raises(ValueError, match="must be one KL number for both sides, got TV"):
        so.sinkhorn_divergence(D.C[0], D.C[0], reg=0.1, unbalanced=so.TV(1))
    # one number keeps its derivative
    rho = torch.tensor(0.5, requires_grad=True, dtype=torch.float64)
    so.solve(D.C[0], D.a[0], D.b[0], 0.1, unbalanced=so.KL(rho)).value.backward()
    assert float(rho.grad) > 0


def test_new_points_are_mapped_but_have_no_price():
    x, y = torch.rand(N, 2, dtype=torch.float64), torch.rand(M, 2, dtype=torch.float64)
    r = so.solve(so.PointCloud(x, y), reg=0.1, mass=0.5)
    torch.testing.assert_close(r.map(x), r.barycentric(y), atol=1e-10, rtol=0)
    with pytest.raises(ValueError, match="potential.*got mass=0.5, which says"):
        r.potential(x)
    r = so.solve(so.PointCloud(x, y), reg=0.1, unbalanced=(None, so.TV(0.1)), tol=1e-12)
    torch.testing.assert_close(r.potential(x), r.f, atol=1e-9, rtol=0)


def test_what_is_seen_of_it():
    r = so.solve(D.C[0], D.a[0], D.b[0], 0.1, unbalanced=(None, so.TV(0.3)))
    assert "penalties=(" in repr(r.problem)
    assert "TV(rho=float64 (1, 9) all 0.3)" in repr(r.problem.penalties[1])
    assert "penalties" not in repr(so.solve(D.C[0], reg=0.1).problem)
    assert repr(so.Between(0.1)) == "Between(low=0.1, high=None)"
