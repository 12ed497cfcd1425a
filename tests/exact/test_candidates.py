"""Tests of the simplex on few pairs: the same optimum as on all of them, or nothing."""

import numpy as np
import ot
import pytest

import sinkhorn_ot as so
from sinkhorn_ot.exact.engines import batched, candidates


def problem(n, m, kind, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    C = ((x[:, None] - y) ** 2).sum(-1) if kind == "points" else rng.random((n, m))
    return C / C.max(), a, b / b.sum() * a.sum()


@pytest.mark.parametrize("kind", ["points", "independent"])
@pytest.mark.parametrize(("n", "m"), [(400, 400), (300, 700), (900, 150)])
def test_the_optimum_is_that_of_all_pairs(n, m, kind):
    C, a, b = problem(n, m, kind)
    found = candidates.solved_on_few(C, a, b, 10**8)
    truth = ot.emd2(a, b, C, numItermax=10**8)
    assert found is not None
    np.testing.assert_allclose(np.bincount(found.source, found.mass, n), a, atol=1e-14)
    np.testing.assert_allclose(np.bincount(found.target, found.mass, m), b, atol=1e-14)
    assert found.mass @ C[found.source, found.target] == pytest.approx(truth, rel=1e-11)
    assert (C - found.f[:, None] - found.g).min() > -1e-9
    assert found.f @ a + found.g @ b == pytest.approx(truth, rel=1e-9)


def test_pairs_missed_at_first_are_found_by_their_prices(monkeypatch):
    C, a, b = problem(300, 300, "points")
    kept = candidates._likely

    def without_best(*of):
        chosen = kept(*of)
        # what an optimal plan uses most of
        best = ot.emd(a, b, C, numItermax=10**8) > 8e-3
        chosen[best] = False
        chosen.ravel()[candidates._stairs(a, b)] = True
        return chosen

    monkeypatch.setattr(candidates, "_likely", without_best)
    found = candidates.solved_on_few(C, a, b, 10**8)
    assert found is not None
    assert found.mass @ C[found.source, found.target] == pytest.approx(
        ot.emd2(a, b, C, numItermax=10**8), rel=1e-11
    )


@pytest.mark.parametrize(
    "C",
    [
        np.zeros((200, 200)),
        np.abs(np.subtract.outer(np.arange(200.0), np.arange(200.0))) / 200,
        np.random.default_rng(0).random((20, 3000)),
    ],
    ids=["constant", "line", "narrow"],
)
def test_where_few_pairs_say_little_nothing_is_returned(C):
    rng = np.random.default_rng(1)
    a, b = (rng.dirichlet(np.ones(k)) for k in C.shape)
    a[: len(a) // 2] *= 3
    assert candidates.solved_on_few(C, a / a.sum(), b, 10**8) is None


def test_weights_too_small_for_single_precision_are_left_to_the_simplex():
    C, a, b = problem(400, 400, "independent")
    a[:5] = 1e-60
    a *= b.sum() / a.sum()
    exact = so.solve_exact(C, a, b)
    assert exact.converged
    assert float(exact.value) == pytest.approx(ot.emd2(a, b, C, numItermax=10**8), rel=1e-11)


@pytest.mark.parametrize("forbidden", [0.0, 0.5])
def test_large_problems_with_zero_weights_and_forbidden_pairs_are_proved(forbidden):
    C, a, b = problem(450, 420, "points")
    a[::7], b[3::5] = 0.0, 0.0
    b *= a.sum() / b.sum()
    C[np.random.default_rng(2).random(C.shape) < forbidden] = np.inf
    exact = so.solve_exact(C, a, b)
    truth = ot.emd2(a, b, np.where(np.isinf(C), 1e4, C), numItermax=10**8)
    assert exact.converged
    assert exact.method == "exact: network simplex"
    assert float(exact.value) == pytest.approx(truth, rel=1e-11)
    assert float(exact.gap) <= 1e-14


def test_a_limit_on_pivots_is_one_on_all_pairs(monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(batched, "solved_on_few", never)
    C, a, b = problem(400, 400, "points")
    assert so.solve_exact(C, a, b, max_iter=10**7).converged
    with pytest.raises(AssertionError):
        so.solve_exact(C, a, b)


@pytest.mark.parametrize("seed", [3, 21])
def test_prices_are_of_the_size_of_the_costs(seed):
    """Artificial arcs leave a constant on the simplex's own, which takes digits of the bound."""
    n, r = 1100, np.random.default_rng(seed)
    x, y = np.floor(28 * r.random((2, n, 2)))
    C = np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
    a, b = r.random((2, n)) + 0.01
    found = so.solve_exact(C, a / a.sum(), b / b.sum())
    assert float(found.f.abs().max()) <= 2 * C.max()
    assert abs(float(found.dual_value - found.value_linear)) <= 1e-13 * C.max()
