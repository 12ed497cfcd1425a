"""solve_1d beside linear programs, closed forms and SciPy; its duals, derivatives and refusals."""

import importlib
import math

import numpy as np
import ot
import pytest
import torch
from scipy.stats import wasserstein_distance

import sinkhorn_ot as so


POWERS = (1, 1.5, 2, 3)


def problem(k: int, ties: bool | None = None):
    """Return points, some of them equal, and weights, some of them zero."""
    rng = np.random.default_rng(k)
    n, m = rng.integers(1, 12, 2)
    x, y = rng.normal(size=n), rng.normal(size=m)
    if k % 2 if ties is None else ties:
        x, y = x.round(1), y.round(1)
    a, b = rng.random(n) * (rng.random(n) > 0.2), rng.random(m)
    a[0] += a.sum() == 0
    return x, y, a / a.sum(), b / b.sum()


def costs(x, y, p, period=None):
    apart = np.abs(x[:, None] - y)
    if period is not None:
        apart = apart % period
        apart = np.minimum(apart, period - apart)
    return apart**p


def check(r, x, y, a, b, p, period=None) -> None:
    """Require what an optimal plan and its duals are, beside POT's network simplex."""
    C = costs(x, y, p, period)
    best = float(ot.emd2(a, b, C))
    f, g, P = r.f.numpy(), r.g.numpy(), r.plan.numpy()
    scale = 1 + C.max()
    assert abs(float(r.value) - best) <= 1e-12 * scale
    assert abs(float(r.distance) - best ** (1 / p)) <= 1e-7
    assert (f[:, None] + g - C).max() <= 1e-13 * scale
    assert abs(f @ a + g @ b - best) <= 1e-12 * scale
    assert abs(g @ b) <= 1e-13 * scale
    assert abs(P.sum(1) - a).max() <= 1e-15 * len(a)
    assert abs(P.sum(0) - b).max() <= 1e-15 * len(b)
    assert abs((P * C).sum() - best) <= 1e-12 * scale
    assert (P >= 0).all()


@pytest.mark.parametrize("period", [None, 1.0, 2.5])
def test_a_hundred_problems_are_those_of_the_simplex(period) -> None:
    for k in range(100 if period is None else 50):
        x, y, a, b = problem(k)
        p = POWERS[k // 2 % 4]
        check(so.solve_1d(x, y, a, b, p=p, period=period), x, y, a, b, p, period)


@pytest.mark.parametrize("period", [None, 1.0])
def test_a_batch_is_its_problems(period) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3, 6)), rng.normal(size=(3, 7))
    a, b = rng.random((4, 1, 6)), rng.random(7)
    a, b = a / a.sum(-1, keepdims=True), b / b.sum()
    r = so.solve_1d(x, y, a, b, p=3, period=period)
    assert r.value.shape == (4, 3)
    assert r.plan.shape == (4, 3, 6, 7)
    assert r.sparse_plan.shape == (4, 3, 6, 7)
    for k in np.ndindex(4, 3):
        one = so.solve_1d(x[k], y[k[1]], a[k[0], 0], b, p=3, period=period)
        for name in ("value", "f", "g", "plan"):
            torch.testing.assert_close(getattr(r, name)[k], getattr(one, name), atol=1e-14, rtol=0)


def test_without_weights_of_one_size_it_is_a_matching() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 40))
    r = so.solve_1d(x, y, p=1)
    assert float(r.value) == pytest.approx(wasserstein_distance(x, y), rel=1e-14)
    assert r.source.shape == (40,)
    check(r, x, y, np.full(40, 1 / 40), np.full(40, 1 / 40), 1)


def test_it_agrees_with_scipy_and_pot_on_the_line_and_on_the_circle() -> None:
    for k in range(20):
        x, y, a, b = problem(k)
        found = float(so.solve_1d(x, y, a, b, p=1).value)
        assert found == pytest.approx(wasserstein_distance(x, y, a, b), abs=1e-13)
        assert found == pytest.approx(ot.emd2_1d(x, y, a, b, metric="euclidean"), abs=1e-13)
        x, y = x % 1, y % 1
        # theirs is no optimum where weights are zero
        a = (a + 0.1) / (a + 0.1).sum()
        for p in (1, 2):
            ours = float(so.solve_1d(x, y, a, b, p=p, period=1).value)
            assert ours == pytest.approx(ot.wasserstein_circle(x, y, a, b, p=p)[0], abs=1e-8)


def test_weights_of_nearly_nothing_where_a_turn_is_over() -> None:
    rng = np.random.default_rng(7)
    for k in range(60):
        n, m = rng.integers(10, 40, 2)
        x, y = rng.random(n), np.sort(rng.random(m))
        a, b = rng.random(n), rng.random(m)
        b[:3] = b[-3:] = 1e-300
        a, b = a / a.sum(), b / b.sum()
        p = POWERS[k % 4]
        r = so.solve_1d(x, 50 * y - 20, a, b, p=p, period=1)
        C = costs(x, 50 * y - 20, p, 1)
        assert (r.f.numpy()[:, None] + r.g.numpy() - C).max() <= 1e-12
        assert abs(float(r.f @ torch.from_numpy(a) - r.value)) <= 1e-12


@pytest.mark.parametrize("period", [None, 1.0])
def test_tensors_are_solved_as_arrays_are(monkeypatch: pytest.MonkeyPatch, period) -> None:
    """Tensors of another device stay tensors all along, which those of a CPU can too."""
    rng = np.random.default_rng(0)
    x, y, a = rng.normal(size=(3, 6)), rng.normal(size=7), rng.random((2, 1, 6))
    a = torch.from_numpy(a / a.sum(-1, keepdims=True))
    truth = so.solve_1d(x, y, a, p=1.5, period=period)
    for name in ("measures", "ways", "circle"):
        module = importlib.import_module(f"sinkhorn_ot.derived.line.{name}")
        monkeypatch.setattr(module, "constants", lambda t: torch.as_tensor(t).detach())
    found = so.solve_1d(x, y, a, p=1.5, period=period)
    assert isinstance(found.given.x, torch.Tensor)
    for name in ("value", "f", "g", "plan"):
        torch.testing.assert_close(getattr(found, name), getattr(truth, name))


def test_uniform_on_a_circle_has_a_closed_form() -> None:
    x = np.random.default_rng(2).random(30)
    even = (np.arange(6000) + 0.5) / 6000
    found = float(so.solve_1d(x, even, p=2, period=1).value)
    assert found == pytest.approx(float(ot.semidiscrete_wasserstein2_unif_circle(x)[0]), abs=1e-6)


def test_a_turned_circle_is_at_the_distance_of_the_turn() -> None:
    x = np.array([0.0, 0.1, 0.35, 0.7])
    for turn in (0.05, 0.3, 0.95):
        r = so.solve_1d(x, x + turn + 3.0, p=2, period=1.0)
        C = costs(x, x + turn, 2, 1.0)
        assert float(r.value) == pytest.approx(float(ot.emd2([], [], C)), abs=1e-15)
    across = so.solve_1d([0.05], [0.95], p=1, period=1.0)
    assert float(across.value) == pytest.approx(0.1)


def test_a_line_of_one_point_each() -> None:
    r = so.solve_1d([1.0], [3.0])
    assert float(r.value) == 4
    assert r.plan.tolist() == [[1.0]]
    assert float(so.solve_1d([1.0], [3.0], p=1).distance) == 2


def test_float32_and_integers_come_back_as_such_and_are_solved_in_float64() -> None:
    x, y, a, b = (torch.from_numpy(t) for t in problem(4))
    single = so.solve_1d(x.float(), y.float(), a.float(), b.float())
    assert single.value.dtype == single.f.dtype == single.plan.dtype == torch.float32
    exact = so.solve_1d(x.float().double(), y.float().double(), a, b)
    assert float(single.value) == pytest.approx(float(exact.value), rel=1e-6)
    assert float(so.solve_1d([0, 2], [1, 3], p=1).value) == 1


@pytest.mark.parametrize(("p", "period"), [(1, None), (2.5, None), (2, 2.5)])
def test_derivatives_of_both_orders(p, period) -> None:
    random = torch.Generator().manual_seed(3)
    leaves = [
        torch.rand(n, dtype=torch.float64, generator=random, requires_grad=True)
        for n in (4, 3, 4, 3)
    ]

    def value(x, y, a, b):
        a, b = (w / w.sum(-1, keepdim=True) for w in (a + 0.1, b + 0.1))
        return so.solve_1d(3 * x, 2 * y, a, b, p=p, period=period).value

    assert torch.autograd.gradcheck(value, leaves)
    assert torch.autograd.gradgradcheck(value, leaves)


@pytest.mark.parametrize("period", [None, 1.0])
def test_a_weight_is_worth_its_potential(period) -> None:
    x, y, a, b = (torch.from_numpy(t) for t in problem(8))
    a.requires_grad_()
    b.requires_grad_()
    r = so.solve_1d(x, y, a, b, period=period)
    by_a, by_b = torch.autograd.grad(r.value, (a, b))
    torch.testing.assert_close(by_a, r.f.detach())
    torch.testing.assert_close(by_b, r.g.detach())


def test_the_distance_of_equal_measures_has_a_derivative() -> None:
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    (by,) = torch.autograd.grad(so.solve_1d(x, x.detach()).distance, x)
    assert by.tolist() == [0.0, 0.0]


def test_who_changes_an_argument_later_does_not_change_a_result() -> None:
    for make in (np.array, torch.tensor):
        x, a = make([0.0, 1.0]), make([0.5, 0.5])
        r = so.solve_1d(x, [1.0, 2.0], a)
        x[0], a[0] = 100, 7
        assert float(r.value) == 1


def test_many_points_cost_no_digits() -> None:
    rng = np.random.default_rng(0)
    x, y, a, b = *rng.normal(size=(2, 20_000)), *rng.random((2, 20_000))
    a, b = a / a.sum(), b / b.sum()
    r = so.solve_1d(x, y, a, b)
    assert float(r.f @ torch.from_numpy(a)) == pytest.approx(float(r.value), rel=1e-12)
    assert r.sparse_plan._nnz() < 40_000


BAD = [
    (lambda x, y: so.solve_1d([math.nan, 1.0], y), "x must be finite, got nan at index 0"),
    (lambda x, y: so.solve_1d(x, [math.inf, 1.0]), "y must be finite, got inf at index 0"),
    (lambda x, y: so.solve_1d([], y), r"x must not be empty, got shape \(0,\)"),
    (lambda x, y: so.solve_1d(1.0, y), r"x must have shape \(..., n\), got \(\)"),
    (lambda x, y: so.solve_1d(x, y, p=0.5), "p must be a finite number of at least 1, got 0.5"),
    (lambda x, y: so.solve_1d(x, y, p=math.inf), "p must be a finite number of at least 1"),
    (lambda x, y: so.solve_1d(x, y, p="2"), "p must be one number"),
    (lambda x, y: so.solve_1d(x, y, period=0), "period must be a finite number above zero"),
    (lambda x, y: so.solve_1d(x, y, period=-1.0), "period must be a finite number above zero"),
    (lambda x, y: so.solve_1d(x, y, period=math.nan), "period must be a finite number above"),
    (lambda x, y: so.solve_1d(x, y, [1.0, 2.0], [1.0, 1.0]), "must have the same total mass"),
    (lambda x, y: so.solve_1d(x, y, [1.0, -1.0]), "a must be non-negative, got -1 at index 1"),
    (lambda x, y: so.solve_1d(x, y, [0.0, 0.0]), "a must have some positive weight"),
    (lambda x, y: so.solve_1d(x, y, [1.0]), r"a must have shape \(..., 2\) to fit x"),
    (lambda x, y: so.solve_1d(x, [1e200, 0.0]), "x and y must have costs below 1e"),
    (lambda x, y: so.solve_1d(x, y, period=1e100), "x and y must have costs below 1e"),
    (lambda x, y: so.solve_1d(np.ones((3, 2)), np.ones((2, 2))), "leading dimensions that broad"),
    (lambda x, y: so.solve_1d(x, np.array(["a"])), "y must hold real numbers"),
    (lambda x, y: so.solve_1d(np.array(x), np.array([math.nan, 0.0])), "y must be finite"),
    (lambda x, y: so.solve_1d(np.array(x), np.array(y), np.array([math.nan, 1.0])), "a must be fi"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_told(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call([0.0, 1.0], [0.5, 1.5])


def test_transforms_are_told_what_to_do() -> None:
    with pytest.raises(ValueError, match="leading dimensions are a batch"):
        torch.vmap(lambda x: so.solve_1d(x, x).value)(torch.rand(3, 4))


def test_it_shows_as_one_line() -> None:
    r = so.solve_1d([0.0, 1.0], [0.5], [0.5, 0.5])
    assert repr(r) == "LineTransport(batch=(), n=2, m=1, p=2, period=None)"


@pytest.mark.parametrize("period", [None, 3.0])
def test_points_without_weight_carry_exactly_nothing(period):
    rng = np.random.default_rng(0)
    for k in range(100):
        n, m = rng.integers(2, 9, 2)
        a, b = rng.random(n) * (rng.random(n) > 0.4), rng.random(m) * (rng.random(m) > 0.4)
        a[0] += a.sum() == 0
        b[0] += b.sum() == 0
        a, b = a / a.sum(), b / b.sum()
        x, y = rng.normal(size=n), rng.normal(size=m)
        # far off, where a digit of mass would show
        x[a == 0], y[b == 0] = (1e9, 1e9) if period is None else (2.99, 2.99)
        r = so.solve_1d(x, y, a, b, period=period)
        P = r.plan.numpy()
        assert not P[a == 0].any(), k
        assert not P[:, b == 0].any(), k
        short = so.solve_1d(x[a > 0], y[b > 0], a[a > 0], b[b > 0], period=period)
        torch.testing.assert_close(r.value, short.value, rtol=1e-12, atol=1e-14)
