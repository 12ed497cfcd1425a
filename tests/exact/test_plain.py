"""Tests of the short way for one plain problem: what it makes, proves, and leaves alone."""

import numpy as np
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.exact import linear_program, plain
from sinkhorn_ot.exact.engines.forest import climbed
from sinkhorn_ot.problem import make, make_plain


MOST = 1 << 20


def problem(n, m, equal=False, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    C = ((x[:, None] - y) ** 2).sum(-1)
    if equal:
        return C, np.full(n, 1 / n), np.full(m, 1 / m)
    return C, rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("given", [True, False])
def test_the_problem_is_what_make_makes(kind, given):
    C, a, b = problem(7, 9)
    C, *weights = (kind(t) for t in (C, a, b))
    weights = weights if given else [None, None]
    short, long = make_plain(C, *weights, MOST), make(C, *weights)
    assert short is not None
    for name in ("a", "b", "reg"):
        torch.testing.assert_close(getattr(short, name), getattr(long, name), rtol=1e-15, atol=0)
    assert torch.equal(short.cost.C.expand_as(long.cost.C), long.cost.C)
    for name in ("relax", "batch_shape", "dtype", "bounds", "shift", "aside", "one_reg", "far"):
        assert getattr(short, name) == getattr(long, name), name
    assert (short.shape, short.rounded) == (long.shape, long.rounded)


def _with(t, value):
    t = t.copy()
    t.flat[1] = value
    return t


@pytest.mark.parametrize(
    "change",
    [
        lambda C, a, b: (_with(C, np.nan), a, b),
        lambda C, a, b: (_with(C, np.inf), a, b),
        lambda C, a, b: (_with(C, -np.inf), a, b),
        lambda C, a, b: (_with(C, 1e308) * 10, a, b),
        lambda C, a, b: (C + 1e4, a, b),
        lambda C, a, b: (C - 1e4, a, b),
        lambda C, a, b: (0 * C, a, b),
        lambda C, a, b: (C * 1e-200, a, b),
        lambda C, a, b: (C[None], a, b),
        lambda C, a, b: (C[0], a, b),
        lambda C, a, b: (C[:0], a, b),
        lambda C, a, b: (C.astype(np.float32), a, b),
        lambda C, a, b: (C.astype(">f8"), a, b),
        lambda C, a, b: (C.tolist(), a, b),
        lambda C, a, b: (np.ma.masked_greater(C, 1), a, b),
        lambda C, a, b: (so.PointCloud(np.zeros((5, 2)), np.ones((6, 2))), a, b),
        lambda C, a, b: (C, _with(a, 0.0), b),
        lambda C, a, b: (C, _with(a, -0.1), b),
        lambda C, a, b: (C, _with(a, np.nan), b),
        lambda C, a, b: (C, _with(a, np.inf), b),
        lambda C, a, b: (C, 2 * a, b),
        lambda C, a, b: (C, a * 1e-200, b * 1e-200),
        lambda C, a, b: (C, a * 1e200, b * 1e200),
        lambda C, a, b: (C, a[:-1], b),
        lambda C, a, b: (C, a[None], b),
        lambda C, a, b: (C, a, b.astype(np.float32)),
        lambda C, a, b: (C, [], b),
        lambda C, a, b: (C, torch.ones(5, dtype=torch.int64), b),
        lambda C, a, b: (C, torch.ones(5, dtype=torch.bool), b),
    ],
)
def test_what_has_more_to_it_is_left_to_make(change):
    assert make_plain(*problem(5, 6), MOST) is not None
    with np.errstate(all="ignore"):
        given = change(*problem(5, 6))
    assert make_plain(*given, MOST) is None


def test_large_problems_are_left_alone():
    C, a, b = problem(5, 6)
    assert make_plain(C, a, b, 29) is None
    assert make_plain(C, a, b, 30) is not None


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 40, 70, 120])
@pytest.mark.parametrize("m", [2, 8, 40, 120])
def test_it_proves_what_the_long_way_proves(monkeypatch, n, m, equal):
    C, a, b = problem(n, m, equal)
    assert plain.solved_plain(make_plain(C, a, b, MOST)) is not None
    short = so.solve_exact(C, a, b)
    monkeypatch.setattr(linear_program, "make_plain", lambda *_: None)
    long = so.solve_exact(C, a, b)
    assert short.method == long.method
    assert short.status is long.status is so.Status.OPTIMAL
    torch.testing.assert_close(short.plan, long.plan, rtol=0, atol=1e-15)
    f, g, wide = short.f.numpy(), short.g.numpy(), np.longdouble
    assert (f.astype(wide)[:, None] + g.astype(wide) <= C.astype(wide)).all()
    size = float(np.abs(f) @ a + np.abs(g) @ b + (short.plan.numpy() * C).sum())
    assert float(short.dual_value) == pytest.approx(float(long.dual_value), abs=2e-15 * size)
    for name in ("n_iter", "converged", "marginal_error", "value"):
        one, other = getattr(short, name), getattr(long, name)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


def test_a_plan_without_a_proof_is_best_or_given_up(monkeypatch):
    # nearly equal clouds, whose value is small beside their spread, and costs of all sizes
    C, a, b = problem(200, 200)
    x = np.random.default_rng(0).normal(size=(200, 2))
    near = ((x[:, None] - x - 0.01 * b[:, None]) ** 2).sum(-1)
    assert plain.unproved_plan(make_plain(near, a, a, MOST)) is not None
    rng, given_up = np.random.default_rng(0), 0
    for k in range(60):
        C, a, b = problem(*rng.integers(2, 15, 2), seed=k)
        C = np.exp((1, 10, 20)[k % 3] * rng.normal(size=C.shape))
        P = plain.unproved_plan(make_plain(C, a, b, MOST))
        given_up += P is None
        r = so.solve_exact(C, a, b)
        assert r.status is so.Status.OPTIMAL
        if P is not None:
            assert (P * C).sum() == pytest.approx(float(r.value), rel=1e-9, abs=0), k
    assert 0 < given_up < 40
    # a plan that is not the best one
    C, a, b = problem(5, 6)
    monkeypatch.setattr(plain, "_simplex", lambda R, a, b: (np.outer(a, b), 0 * a, 0 * b))
    monkeypatch.setattr(plain, "_LOST", 1.0)
    assert plain.unproved_plan(make_plain(C, a, b, MOST)) is None


@pytest.mark.parametrize(
    "spoil", [lambda P: P[::-1].copy(), lambda P: 0.9 * P, lambda P: P * np.nan]
)
def test_what_is_not_proved_is_solved_the_long_way(monkeypatch, spoil):
    C, a, b = problem(6, 6)
    a[:] = a[::-1] = 1 / 6
    truth = plain.simplex_of

    def wrong(*of):
        P, *rest = truth(*of)
        return spoil(P), *rest

    monkeypatch.setattr(plain, "simplex_of", wrong)
    assert plain.solved_plain(make_plain(C, a, b, MOST)) is None
    assert so.solve_exact(C, a, b).converged


def test_potentials_have_their_last_digits():
    for seed in range(20):
        C, a, b = problem(60, 60 + seed % 3, seed % 2 == 0, seed)
        r = so.solve_exact(C, a, b)
        f, g, P = r.f.numpy(), r.g.numpy(), r.plan.numpy()
        slack = (P * (C - f[:, None] - g)).sum()
        assert 0 <= slack <= 1e-15 * (np.abs(f) @ a + np.abs(g) @ b + (P * C).sum())


def test_who_changes_the_input_later_changes_no_answer():
    C, a, b = problem(6, 8)
    r = so.solve_exact(C, a, b)
    before = [float(t) for t in (so.solve_exact(C, a, b).value, r.problem.a.sum())]
    C[:], a[:], b[:] = 0, 0, 0
    assert [float(r.value), float(r.problem.a.sum())] == before


def test_each_tree_is_walked_from_its_own_root():
    C = np.arange(12.0).reshape(3, 4) ** 2
    start = np.array([3.0, -7.0, 5.0])
    # rows 0 and 2 share column 1; row 1 has its own tree
    pairs = np.array([0, 1, 6, 9, 11])
    g = climbed(C, pairs, start)
    np.testing.assert_array_equal(g[[0, 1, 2]], [C[0, 0] - 3, C[0, 1] - 3, C[1, 2] + 7])
    assert g[3] == C[2, 3] - (C[2, 1] - g[1])


def test_weights_whose_sum_is_no_number_are_told_without_a_warning():
    heavy = np.full(2, 1e308)
    with pytest.raises(ValueError, match="a must have a total weight below 1e154, got inf"):
        so.solve_exact(np.eye(2), heavy, heavy)
