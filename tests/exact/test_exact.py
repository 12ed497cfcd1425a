"""Exact transport: known answers, engines against one another, proofs made from scratch, lies."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

import sinkhorn_ot as so
from sinkhorn_ot.exact import linear_program, rounds, routes
from sinkhorn_ot.exact.engines import ENGINES, Flow, table
from sinkhorn_ot.exact.proof import Measured
from sinkhorn_ot.exact.rounds import Answers


GENERAL = ("network simplex", "highs")
INF = float("inf")
rng = np.random.default_rng(0)
_START = rng.bit_generator.state


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Start every test from the same numbers, whatever ran before it."""
    rng.bit_generator.state = _START


def simplex(size: int, zeros: float = 0.0, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    w = random.dirichlet(np.ones(size)) * (random.random(size) >= zeros)
    w[0] += 0.1
    return w / w.sum()


def prove(r: so.Transport, C, a, b, rtol: float = 1e-12) -> float:
    """Check plan and potentials without the package, and return the value."""
    P, f, g = (t.numpy() for t in (r.plan, r.f, r.g))
    C = np.asarray(C, dtype=np.float64)
    b = np.asarray(b) * (np.sum(a) / np.sum(b))
    assert np.isfinite(P).all()
    assert np.isfinite(f).all()
    assert np.isfinite(g).all()
    assert (P >= 0).all()
    assert (P[~np.isfinite(C)] == 0).all()
    assert (P[a == 0] == 0).all()
    assert (P[:, b == 0] == 0).all()
    assert np.abs(P.sum(1) - a).sum() <= 1e-13 * a.sum()
    assert np.abs(P.sum(0) - b).sum() <= 1e-13 * a.sum()
    # no digit of a potential is too large, in more digits than they have
    wide = np.longdouble
    assert (f.astype(wide)[:, None] + g.astype(wide) <= C.astype(wide)).all()
    upper, lower = (P * np.where(P > 0, C, 0)).sum(), f @ a + g @ b
    terms = (P * np.where(P > 0, np.abs(C), 0)).sum() + np.abs(f) @ a + np.abs(g) @ b
    assert abs(upper - lower) <= rtol * terms
    assert r.status is so.Status.OPTIMAL
    assert r.converged.all()
    assert r.method.startswith("exact")
    assert torch.equal(r.value, r.value_linear)
    assert float(r.value) == pytest.approx(upper, rel=1e-12, abs=1e-15 * terms)
    assert float(r.dual_value) == pytest.approx(lower, rel=1e-12, abs=1e-15 * terms)
    assert abs(float(r.gap)) <= rtol * terms
    assert float(r.marginal_error) <= 1e-13
    return float(upper)


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
class TestKnownAnswers:
    def test_permutation(self, engine: str) -> None:
        order = np.random.default_rng(1).permutation(9)
        r = so.solve_exact(1 - np.eye(9)[order], engine=engine)
        np.testing.assert_array_equal(r.plan.numpy() > 0, np.eye(9)[order] > 0)
        assert prove(r, 1 - np.eye(9)[order], np.full(9, 1 / 9), np.full(9, 1 / 9)) == 0

    @pytest.mark.parametrize("power", [1, 2, 3])
    def test_points_on_a_line_keep_their_order(self, engine: str, power: int) -> None:
        x, y = rng.normal(size=20), rng.normal(size=20)
        C = np.abs(x[:, None] - y) ** power
        value = prove(so.solve_exact(C, engine=engine), C, np.full(20, 0.05), np.full(20, 0.05))
        assert value == pytest.approx((np.abs(np.sort(x) - np.sort(y)) ** power).mean(), rel=1e-12)

    def test_identical_clouds_cost_nothing(self, engine: str) -> None:
        x = rng.normal(size=(12, 2))
        C = ((x[:, None] - x) ** 2).sum(-1)
        r = so.solve_exact(C, engine=engine)
        assert float(r.value) == 0
        assert torch.allclose(r.plan, torch.eye(12, dtype=torch.float64) / 12)

    def test_one_point_to_one_point(self, engine: str) -> None:
        r = so.solve_exact([[-3.5]], [2.0], [2.0], engine=engine)
        assert float(r.value) == -7.0
        assert r.plan.tolist() == [[2.0]]

    def test_equal_costs_everywhere(self, engine: str) -> None:
        C = np.full((6, 6), -0.7)
        value = prove(so.solve_exact(C, engine=engine), C, np.full(6, 1 / 6), np.full(6, 1 / 6))
        assert value == pytest.approx(-0.7)


@pytest.mark.parametrize("engine", GENERAL)
class TestKnownAnswersWithWeights:
    def test_two_points(self, engine: str) -> None:
        r = so.solve_exact([[0.0, 1.0], [1.0, 0.0]], [0.7, 0.3], [0.4, 0.6], engine=engine)
        np.testing.assert_allclose(r.plan, [[0.4, 0.3], [0.0, 0.3]], atol=1e-16)
        assert float(r.value) == pytest.approx(0.3, rel=1e-15)

    def test_one_dimension_against_the_quantile_formula(self, engine: str) -> None:
        x, y, a, b = rng.normal(size=25), rng.normal(size=31), simplex(25), simplex(31, 0.3, 1)
        C = np.abs(x[:, None] - y)
        value = prove(so.solve_exact(C, a, b, engine=engine), C, a, b)
        assert value == pytest.approx(wasserstein_distance(x, y, a, b), rel=1e-12)

    @pytest.mark.parametrize("shape", [(1, 7), (7, 1)])
    def test_a_dirac_has_one_plan(self, engine: str, shape: tuple[int, int]) -> None:
        C, a, b = rng.normal(size=shape), simplex(shape[0], 0.4), simplex(shape[1], 0.4)
        r = so.solve_exact(C, a, b, engine=engine)
        np.testing.assert_allclose(r.plan, np.outer(a, b), atol=1e-16)
        prove(r, C, a, b)

    def test_a_dirac_among_many_points(self, engine: str) -> None:
        C, b = rng.normal(size=(5, 7)), simplex(7)
        r = so.solve_exact(C, np.eye(5)[3], b, engine=engine)
        assert prove(r, C, np.eye(5)[3], b) == pytest.approx(C[3] @ b)


def both(C, a, b) -> None:
    """Solve by every engine that may, prove each and compare."""
    values = [prove(so.solve_exact(C, a, b, engine=e), C, a, b) for e in (*GENERAL, "auto")]
    allowed = np.abs(C[np.isfinite(C)]).max() * a.sum()
    assert max(values) - min(values) <= 1e-12 * allowed


@pytest.mark.parametrize("zeros", [0.0, 0.4])
@pytest.mark.parametrize(("n", "m"), [(17, 65), (30, 30), (2, 40), (40, 3)])
def test_engines_agree(n: int, m: int, zeros: float) -> None:
    both(rng.normal(size=(n, m)), simplex(n, zeros), simplex(m, zeros, 1))


@pytest.mark.parametrize("n", [2, 11, 60])
def test_assignment_agrees_with_the_others(n: int) -> None:
    u = np.full(n, 1 / n)
    for C in (rng.normal(size=(n, n)), rng.integers(0, 4, (n, n)).astype(float)):
        value = prove(so.solve_exact(C, engine="assignment"), C, u, u)
        assert value == pytest.approx(prove(so.solve_exact(C), C, u, u), abs=1e-13)


def test_assignment_leaves_out_points_without_weight() -> None:
    C, a, b = rng.random((5, 7)), np.array([0, 1, 1, 0, 1.0]), np.array([1, 0, 0, 0, 1, 1, 0.0])
    value = prove(so.solve_exact(C, a, b, engine="assignment"), C, a, b)
    assert value == pytest.approx(prove(so.solve_exact(C, a, b), C, a, b))


def test_a_long_chain_of_shortest_paths() -> None:
    # on a line every potential hangs on its neighbour's
    x = np.arange(150.0)
    C = (x[:, None] - x - 0.5) ** 2
    u = np.full(150, 1 / 150)
    assert prove(so.solve_exact(C, engine="assignment"), C, u, u) == pytest.approx(0.25)


SCALES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "1e12": lambda C: C * 1e12,
    "1e-12": lambda C: C * 1e-12,
    "1e300": lambda C: C * 1e300,
    "1e-300": lambda C: C * 1e-300,
    "offset 1e9": lambda C: C + 1e9,
    "offset -1e9": lambda C: C - 1e9,
    "narrow": lambda C: 1 + 1e-9 * C,
    "row offsets": lambda C: C + 1e6 * np.arange(len(C))[:, None],
    "a prohibitive price": lambda C: np.where(C > 0.7, 1e12, C),
    "many magnitudes": lambda C: 10 ** (16 * C - 8),
    "ties": lambda C: np.round(3 * C) - 1,
}


@pytest.mark.parametrize("engine", GENERAL)
@pytest.mark.parametrize("scale", SCALES)
def test_any_scale_of_cost(scale: str, engine: str) -> None:
    C, a, b = SCALES[scale](np.random.default_rng(3).random((12, 15))), simplex(12), simplex(15)
    prove(so.solve_exact(C, a, b, engine=engine), C, a, b)


def test_a_narrow_cost_is_solved_below_the_tolerance_of_highs() -> None:
    C, a, b = rng.random((12, 15)), simplex(12), simplex(15)
    narrow = 1 + 2.0**-40 * C
    best = float(so.solve_exact(C, a, b).value)
    plan = so.solve_exact(narrow, a, b, engine="highs").plan.numpy()
    assert (plan * C).sum() == pytest.approx(best, abs=1e-3)
    assert (np.outer(a, b) * C).sum() > best + 0.1


@pytest.mark.parametrize("engine", GENERAL)
@pytest.mark.parametrize("mass", [1e9, 1e-9, 1e-200])
def test_any_mass(mass: float, engine: str) -> None:
    C, a, b = rng.random((9, 8)), simplex(9, 0.3), simplex(8)
    value = prove(so.solve_exact(C, a * mass, b * mass, engine=engine), C, a * mass, b * mass)
    assert value == pytest.approx(mass * float(so.solve_exact(C, a, b).value), rel=1e-12)


@pytest.mark.parametrize("engine", GENERAL)
def test_tiny_weights_count(engine: str) -> None:
    a, b = simplex(8), simplex(9)
    a[::2], b[::2] = 1e-14, 1e-14
    b *= a.sum() / b.sum()
    C = rng.random((8, 9))
    r = so.solve_exact(C, a, b, engine=engine)
    prove(r, C, a, b)
    # what double precision holds of them beside weights near one
    np.testing.assert_allclose(r.plan.sum(1)[::2], 1e-14, rtol=0.05)


@pytest.mark.parametrize("engine", GENERAL)
def test_masses_that_differ_by_rounding(engine: str) -> None:
    C, a, b = rng.random((6, 7)), simplex(6), simplex(7)
    prove(so.solve_exact(C, a, b * (1 + 5e-9), engine=engine), C, a, b)


class TestForbiddenPairs:
    @pytest.mark.parametrize("engine", [*ENGINES, "auto"])
    def test_are_as_good_as_unaffordable(self, engine: str) -> None:
        C, u = rng.random((20, 20)), np.full(20, 0.05)
        banned = (rng.random((20, 20)) < 0.6) & ~np.eye(20, dtype=bool)
        value = prove(so.solve_exact(np.where(banned, INF, C), engine=engine), C + banned, u, u)
        assert value == pytest.approx(float(so.solve_exact(np.where(banned, 1e3, C)).value))

    def test_engines_agree(self) -> None:
        C, a = rng.normal(size=(15, 15)), simplex(15, 0.3)
        C[(rng.random((15, 15)) < 0.7) & ~np.eye(15, dtype=bool)] = INF
        both(C, a, a)

    @pytest.mark.parametrize("engine", GENERAL)
    def test_blocks_whose_masses_differ_by_rounding(self, engine: str) -> None:
        C = np.array([[0.5, 0.25, INF], [INF, INF, 2.0]])
        a, b = np.array([0.3, 0.7]), np.array([0.1, 0.2, 0.7])
        assert b[:2].sum() != a[0]
        assert prove(so.solve_exact(C, a, b, engine=engine), C, a, b) == pytest.approx(1.5)

    @pytest.mark.parametrize("engine", GENERAL)
    def test_blocks_that_need_a_little_more_are_told(self, engine: str) -> None:
        C = np.array([[0.0, INF], [INF, 0.0]])
        with pytest.warns(so.ConvergenceWarning, match="marginal_error of 4e-09"):
            r = so.solve_exact(C, [0.3, 0.7], [0.3 + 2e-9, 0.7 - 2e-9], engine=engine)
        assert r.status is so.Status.STALLED
        assert not r.converged
        assert float(r.marginal_error) == pytest.approx(4e-9)

    @pytest.mark.parametrize("engine", [*ENGINES, "auto"])
    def test_hall_violations_name_the_rows(self, engine: str) -> None:
        C = np.array([[1, INF, INF], [1, 2, 3.0], [1, INF, INF]])
        text = r"rows \[0, 2\] hold 0.6+7, but the columns they may use, .*, take only 0.3+, so"
        with pytest.raises(ValueError, match=text):
            so.solve_exact(C, engine=engine)

    def test_hall_violations_hidden_behind_other_rows(self) -> None:
        # rows 1 to 3 share columns 2 and 3; row 0 is served
        C = np.full((4, 4), INF)
        C[0, :], C[1:, 2:] = 1.0, 1.0
        a = np.array([0.1, 0.3, 0.3, 0.3])
        text = r"in problem 1: rows \[1, 2, 3\] hold 0.9, but .* take only 0.5, so no plan exists"
        with pytest.raises(ValueError, match=text):
            so.solve_exact(np.stack([np.ones((4, 4)), C]), a)

    def test_long_lists_of_rows_are_cut(self) -> None:
        C = np.full((20, 20), INF)
        C[:, 0], C[-1] = 1.0, 1.0
        with pytest.raises(ValueError, match=r"rows \[0, 1, 2, 3, 4, 5, 6, 7, \.\.\.\] hold 0.95"):
            so.solve_exact(C)

    def test_no_plan_is_proved_before_the_simplex_starts(self, monkeypatch) -> None:
        def never(*_: Any) -> Flow:
            raise AssertionError("the flow knows")

        monkeypatch.setattr(routes, "network_simplex", never)
        C = rng.random((151, 141))
        C[:100, :120] = INF
        with pytest.raises(ValueError, match=r"hold 0.66\d+, but .* take only 0.14\d+, so no plan"):
            so.solve_exact(C)

    @pytest.mark.parametrize("excess", [5e-3, 1e-4, 1e-6, 2e-8])
    def test_a_little_stranded_mass_is_too_much(self, excess: float) -> None:
        # 1e-6 and less is beyond what the flow in whole numbers sees of many points
        C = np.full((60, 60), INF)
        C[:30, :30], C[30:, 30:] = rng.random((2, 30, 30))
        a, b = np.full(60, 1 / 60), np.full(60, 1 / 60)
        b[0], b[59] = b[0] - excess, b[59] + excess
        with pytest.raises(ValueError, match=r"rows .* hold 0\.5\d*, but .* take only 0\.4\d+, so"):
            so.solve_exact(C, a, b)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_blocks_of_rounded_weights_are_made_equal(self, dtype: torch.dtype) -> None:
        C = torch.tensor([[0.5, INF], [INF, 0.25]], dtype=dtype)
        a, b = torch.tensor([0.3, 0.7]), torch.tensor([0.300001, 0.699999])
        r = so.solve_exact(C, a, b)
        assert r.status is so.Status.OPTIMAL
        assert float(r.value) == pytest.approx(0.3 * 0.5 + 0.7 * 0.25, abs=1e-6)
        assert float(r.gap) == pytest.approx(0, abs=1e-12)
        assert float(r.marginal_error) < 1e-15
        # the weights that are met are told, and close to those that were given
        torch.testing.assert_close(r.plan.sum(-1).double(), r.problem.a[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(r.problem.b[0], b.double(), rtol=1e-5, atol=0)
        # float64 has no such excuse, nor has more than rounding
        with pytest.raises(ValueError, match="so no plan exists"):
            so.solve_exact(C, a.double(), b.double())
        with pytest.raises(ValueError, match="so no plan exists"):
            so.solve_exact(C, a, torch.tensor([0.30002, 0.69998]))

    def test_a_partner_without_weight_is_none(self) -> None:
        # column 0 may only be served by row 0, which has nothing
        C, a, b = np.array([[0.0, 0.0], [INF, 0.0]]), [0.0, 1.0], [0.5, 0.5]
        with pytest.raises(ValueError, match="column 0 has positive b but only infinite costs"):
            so.solve_exact(C, a, b)
        with pytest.raises(ValueError, match="column 0 has positive b but only infinite costs"):
            so.solve(C, a, b, reg=1.0)
        # and the other way round
        with pytest.raises(ValueError, match="row 0 has positive a but only infinite costs"):
            so.solve_exact(C.T, b, a)
        with pytest.raises(ValueError, match="row 0 has positive a but only infinite costs"):
            so.solve(C.T, b, a, reg=1.0)

    def test_a_stranded_row_is_named(self) -> None:
        with pytest.raises(ValueError, match="row 1 has positive a but only infinite costs"):
            so.solve_exact(np.array([[1.0, 2.0], [INF, INF]]))

    def test_points_without_weight_need_no_partner(self) -> None:
        C = np.array([[INF, INF, INF], [1.0, INF, 2.0]])
        r = so.solve_exact(C, [0.0, 1.0], [0.5, 0.0, 0.5])
        assert prove(r, C, np.array([0.0, 1.0]), np.array([0.5, 0.0, 0.5])) == 1.5


class TestEngines:
    """What one engine gives by itself, before another round could mend it."""

    def test_the_simplex_keeps_every_digit_beside_its_price_for_forbidden_pairs(self) -> None:
        C, a, b = rng.random((80, 80)), simplex(80), simplex(80, 0, 1)
        C[(rng.random((80, 80)) < 0.8) & (C < 0.9)] = INF
        flow = table.network_simplex(C, a, b, None)
        i, j = np.nonzero(flow.P)
        assert np.isfinite(C[i, j]).all()
        np.testing.assert_allclose(flow.f[i] + flow.g[j], C[i, j], rtol=0, atol=1e-14)

    def test_highs_serves_weights_below_its_tolerance(self) -> None:
        a, b = np.array([1.0, 2e-13, 5e-13, 1e-13]), np.array([3e-13, 1.0, 1e-13, 4e-13])
        P = table.highs(rng.random((4, 4)), a / a.sum(), b / a.sum(), None).P * a.sum()
        np.testing.assert_allclose(P.sum(1)[1:], a[1:], rtol=0.1)

    def test_shortest_paths_go_all_the_way(self) -> None:
        # a chain: each row ties its own target to the next
        C = np.full((40, 40), 50.0)
        C[np.arange(40), np.arange(40)], C[np.arange(39), np.arange(1, 40)] = 1.0, 0.5
        flow = table.assignment(C, np.full(40, 1 / 40), np.full(40, 1 / 40), None)
        np.testing.assert_array_equal(flow.P > 0, np.eye(40) > 0)
        assert (flow.f[:, None] + flow.g <= C + 1e-12).all()


weights = st.lists(st.integers(0, 4), min_size=1, max_size=7).filter(any).map(np.array)


@st.composite
def problems(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Problems full of ties and zeros, or of odd floats."""
    a, b = draw(weights).astype(float), draw(weights).astype(float)
    entries = draw(st.sampled_from([st.integers(-3, 3), st.floats(-1e6, 1e6, width=32)]))
    size = len(a) * len(b)
    C = draw(st.lists(entries, min_size=size, max_size=size))
    return np.array(C, dtype=float).reshape(len(a), len(b)), a / a.sum(), b / b.sum()


class TestProperties:
    @given(problems(), st.sampled_from(GENERAL))
    def test_every_answer_is_proved(self, problem, engine: str) -> None:
        C, a, b = problem
        prove(so.solve_exact(C, a, b, engine=engine), C, a, b)

    @given(problems())
    def test_no_vertex_is_cheaper(self, problem) -> None:
        C, a, b = problem
        value = float(so.solve_exact(C, a, b).value)
        random = np.random.default_rng(0)
        for _ in range(20):
            P = northwest(a, b, random.permutation(len(a)), random.permutation(len(b)))
            assert (P * C).sum() >= value - 1e-12 * np.abs(C).max()

    @given(problems(), st.integers(0, 99))
    def test_offsets_of_rows_and_columns_add_to_the_value(self, problem, seed: int) -> None:
        C, a, b = problem
        r, c = (np.random.default_rng(seed + k).normal(size=len(w)) for k, w in enumerate((a, b)))
        value, moved = (float(so.solve_exact(t, a, b).value) for t in (C, C + r[:, None] + c))
        assert moved == pytest.approx(value + r @ a + c @ b, rel=1e-11, abs=1e-11)

    @given(problems(), st.integers(0, 99))
    def test_order_does_not_matter(self, problem, seed: int) -> None:
        C, a, b = problem
        i, j = (np.random.default_rng(seed).permutation(len(w)) for w in (a, b))
        value = prove(so.solve_exact(C[i][:, j], a[i], b[j]), C[i][:, j], a[i], b[j])
        assert value == pytest.approx(float(so.solve_exact(C, a, b).value), rel=1e-11, abs=1e-11)

    @given(problems(), st.sampled_from(GENERAL))
    def test_transposition(self, problem, engine: str) -> None:
        C, a, b = problem
        value = prove(so.solve_exact(C.T, b, a, engine=engine), C.T, b, a)
        assert value == pytest.approx(float(so.solve_exact(C, a, b).value), rel=1e-11, abs=1e-11)


def northwest(a, b, rows, columns) -> np.ndarray:
    """Return the vertex that fills rows and columns in the given order."""
    P, a, b = np.zeros((len(a), len(b))), a.copy(), b.copy()
    for i in rows:
        for j in columns:
            P[i, j] = min(a[i], b[j])
            a[i], b[j] = a[i] - P[i, j], b[j] - P[i, j]
    return P


class TestBatches:
    def test_broadcast_and_equal_a_loop(self) -> None:
        C, a = rng.random((3, 1, 5, 6)), np.stack([simplex(5, 0.4, s) for s in range(2)])
        b = simplex(6)
        r = so.solve_exact(C, a, b)
        assert r.plan.shape == (3, 2, 5, 6)
        assert r.f.shape == (3, 2, 5)
        assert r.n_iter.shape == r.converged.shape == r.value.shape == (3, 2)
        for i in range(3):
            for k in range(2):
                one = so.solve_exact(C[i, 0], a[k], b)
                prove(one, C[i, 0], a[k], b)
                assert torch.equal(one.plan, r.plan[i, k])
                torch.testing.assert_close(one.g, r.g[i, k], rtol=0, atol=1e-15)

    def test_a_shared_cost_is_not_copied(self) -> None:
        r = so.solve_exact(rng.random((5, 6)), np.stack([simplex(5, 0.2, s) for s in range(4)]))
        assert r.problem.cost.batch_shape == (1,)
        assert r.converged.all()

    def test_each_problem_ends_in_its_own_way(self) -> None:
        C = np.stack([np.zeros((30, 30)), rng.random((30, 30))])
        with pytest.warns(so.ConvergenceWarning, match="1 of 2 problems are not proved optimal"):
            r = so.solve_exact(C, simplex(30), simplex(30, 0, 1), engine="highs", max_iter=40)
        assert r.converged.tolist() == [True, False]
        assert r.status is so.Status.MAX_ITER


class TestResult:
    def test_says_which_engine(self) -> None:
        for name in ENGINES:
            assert so.solve_exact(np.eye(3), engine=name).method == f"exact: {name}"
        assert so.solve_exact(np.eye(3)).method == "exact: assignment"
        assert so.solve_exact(np.ones((3, 4))).method == "exact: network simplex"
        assert so.solve_exact(np.eye(2), [0.4, 0.6], [0.4, 0.6]).method == "exact: network simplex"

    def test_counts_the_iterations_of_highs(self) -> None:
        r = so.solve_exact(rng.random((9, 9)), engine="highs")
        assert r.n_iter.dtype == torch.int64
        assert int(r.n_iter) > 0

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    def test_dtypes(self, dtype: torch.dtype) -> None:
        C = torch.rand(6, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
        r = so.solve_exact(C)
        out = torch.float64 if dtype == torch.float64 else torch.float32
        assert {t.dtype for t in (r.plan, r.f, r.g, r.value, r.gap)} == {out}
        truth = so.solve_exact(C.double())
        assert float(r.value) == pytest.approx(float(truth.value), rel=1e-6)
        # inside it is float64: the bounds of a half-precision cost meet to its last digit
        assert float(r.certificate().gap) <= 1e-15

    def test_a_point_cloud_equals_its_matrix(self) -> None:
        x, y = rng.normal(size=(2, 7, 3)), rng.normal(size=(5, 3))
        r = so.solve_exact(so.PointCloud(torch.tensor(x), torch.tensor(y), "euclidean"))
        C = np.linalg.norm(x[:, :, None] - y, axis=-1)
        truth = so.solve_exact(C)
        torch.testing.assert_close(r.value, truth.value, rtol=1e-12, atol=0)
        assert r.converged.all()

    def test_methods_of_the_result(self) -> None:
        C, a, b, y = rng.random((5, 6)), simplex(5, 0.4), simplex(6), torch.rand(6, 2).double()
        r = so.solve_exact(C, a, b)
        torch.testing.assert_close(r.apply(y), r.plan @ y)
        torch.testing.assert_close(r.apply_transpose(r.f), r.plan.T @ r.f)
        assert r.barycentric(y).isfinite().all()
        torch.testing.assert_close(r.round(), r.plan, rtol=0, atol=1e-15)
        assert r.check() is r
        assert "proved optimal" in r.message
        assert "exact: network simplex" in repr(r)

    def test_arguments_are_left_alone(self) -> None:
        C, a, b = torch.rand(2, 4, 5).double(), torch.rand(4).double(), torch.rand(5).double()
        b *= a.sum() / b.sum()
        copies = [t.clone() for t in (C, a, b)]
        for engine in GENERAL:
            so.solve_exact(C, a, b, engine=engine)
        assert all(torch.equal(s, t) for s, t in zip((C, a, b), copies, strict=True))

    def test_strides_do_not_matter(self) -> None:
        C = rng.random((6, 8))
        value = float(so.solve_exact(C).value)
        assert float(so.solve_exact(C[::-1, ::-1]).value) == pytest.approx(value)
        assert float(so.solve_exact(torch.tensor(C.T.copy()).T).value) == pytest.approx(value)

    def test_engines_are_silent(self, capfd: pytest.CaptureFixture[str]) -> None:
        for engine in GENERAL:
            so.solve_exact(rng.random((9, 9)), engine=engine)
        with pytest.warns(so.ConvergenceWarning) as seen:
            so.solve_exact(rng.random((9, 9)), simplex(9), max_iter=1, engine="network simplex")
        assert len(seen) == 1
        assert seen[0].filename == __file__
        assert capfd.readouterr() == ("", "")

    @pytest.mark.gpu
    def test_device(self) -> None:
        C = torch.rand(2, 6, 7)
        there, here = so.solve_exact(C.cuda()), so.solve_exact(C)
        assert there.plan.is_cuda
        assert there.n_iter.is_cuda
        torch.testing.assert_close(there.value.cpu(), here.value)
        assert float(there.certificate().gap.max()) <= 1e-14


class TestHonesty:
    @pytest.fixture(autouse=True)
    def by_engines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let no problem be so plain that it is solved without the table of engines."""
        monkeypatch.setattr(linear_program, "make_plain", lambda *_: None)

    @pytest.mark.parametrize("engine", [*GENERAL, "auto"])
    def test_an_unfinished_answer_says_so(self, engine: str) -> None:
        C, a, b = rng.random((30, 40)), simplex(30, 0.2), simplex(40, 0.2, 1)
        best = float(so.solve_exact(C, a, b).value)
        with pytest.warns(so.ConvergenceWarning, match="1 of 1 .* a gap of 0.* raise max_iter"):
            r = so.solve_exact(C, a, b, engine=engine, max_iter=2)
        assert r.status is so.Status.MAX_ITER
        assert not r.converged
        # what it has is still a feasible plan above and a feasible dual below
        assert float(r.marginal_error) <= 1e-13
        assert float(r.dual_value) <= best < float(r.value)
        f, g = r.f.numpy(), r.g.numpy()
        assert (f[:, None] + g <= C).all()
        with pytest.raises(so.ConvergenceError, match="Ran out of iterations"):
            r.check()

    def test_an_unfinished_answer_with_forbidden_pairs_uses_none(self) -> None:
        C = np.where(rng.random((30, 30)) < 0.5, INF, rng.random((30, 30)))
        np.fill_diagonal(C, 1.0)
        with pytest.warns(so.ConvergenceWarning):
            r = so.solve_exact(C, engine="highs", max_iter=2)
        assert (r.plan.numpy()[np.isinf(C)] == 0).all()
        assert r.value.isfinite()
        missed = sum(np.abs(r.plan.numpy().sum(axis) - 1 / 30).sum() for axis in (0, 1))
        assert float(r.marginal_error) == pytest.approx(missed)

    @pytest.mark.parametrize(
        ("slack", "gap", "marginal_error", "finished", "status"),
        [
            (1e-15, 1e-15, 1e-16, True, so.Status.OPTIMAL),
            (1e-15, -1e-14, 5e-14, True, so.Status.OPTIMAL),
            # a limit that was met does not undo a proof
            (1e-15, 1e-15, 1e-16, False, so.Status.OPTIMAL),
            (0.0, -1e-3, 1e-16, True, so.Status.OPTIMAL),
            (0.0, -1e-9, 5e-14, True, so.Status.STALLED),
            (0.0, 0.0, 1e-12, True, so.Status.STALLED),
            (1e-9, 0.0, 1e-16, True, so.Status.STALLED),
            (1e-9, 1e-9, 1e-16, False, so.Status.MAX_ITER),
            (np.nan, np.nan, 1e-16, True, so.Status.STALLED),
        ],
    )
    def test_what_counts_as_optimal(
        self, slack: float, gap: float, marginal_error: float, finished: bool, status: so.Status
    ) -> None:
        nothing = np.zeros(1)
        measured = Measured(*(np.array([t]) for t in (slack, 1.0, gap, marginal_error)))
        rest = (["highs"], np.zeros(1, int), np.array([finished]))
        answer = Answers(nothing, nothing, nothing, measured, *rest)
        assert answer.statuses == [status]

    def lie(self, monkeypatch: pytest.MonkeyPatch, flow: Callable[..., Flow]) -> None:
        monkeypatch.setitem(ENGINES, "network simplex", flow)

    def test_a_plan_that_is_not_optimal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lie(monkeypatch, lambda C, a, b, _: Flow(np.outer(a, b), 0 * a, 0 * b, 0, True))
        with pytest.warns(so.ConvergenceWarning, match="network simplex$"):
            r = so.solve_exact(rng.random((6, 6)), engine="network simplex")
        assert r.status is so.Status.STALLED
        assert float(r.gap) > 0.01

    def test_a_plan_that_misses_its_marginals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        truth = table.network_simplex

        def short(C, a, b, limit) -> Flow:
            return truth(C, a, b, limit)._replace(P=np.zeros_like(C))

        self.lie(monkeypatch, short)
        with pytest.warns(so.ConvergenceWarning):
            r = so.solve_exact(rng.random((6, 6)), engine="network simplex")
        assert float(r.plan.sum()) == pytest.approx(1)
        assert float(r.marginal_error) <= 1e-15
        assert float(r.gap) > 0.01

    @pytest.mark.parametrize("turned", [False, True])
    def test_a_plan_that_misses_one_marginal_only(
        self, monkeypatch: pytest.MonkeyPatch, turned: bool
    ) -> None:
        def askew(C, a, b, _) -> Flow:
            P = np.outer(a[::-1], b) if turned else np.outer(a, b[::-1])
            return Flow(P, 0 * a, 0 * b, 0, True)

        self.lie(monkeypatch, askew)
        a, b = simplex(6), simplex(7, 0, 1)
        with pytest.warns(so.ConvergenceWarning):
            r = so.solve_exact(rng.random((6, 7)), a, b, engine="network simplex")
        P = r.plan.numpy()
        assert np.abs(P.sum(1) - a).sum() + np.abs(P.sum(0) - b).sum() <= 1e-15

    def test_potentials_that_are_not_feasible(self, monkeypatch: pytest.MonkeyPatch) -> None:
        truth = table.network_simplex

        def bold(C, a, b, limit) -> Flow:
            flow = truth(C, a, b, limit)
            return flow._replace(f=flow.f + np.arange(len(a)), g=flow.g + np.arange(len(b)))

        self.lie(monkeypatch, bold)
        C = rng.random((6, 6))
        with pytest.warns(so.ConvergenceWarning):
            r = so.solve_exact(C, engine="network simplex")
        assert (r.f.numpy()[:, None] + r.g.numpy() <= C).all()

    def test_not_a_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lie(monkeypatch, lambda C, a, b, _: Flow(C * np.nan, a, b, 0, True))
        with pytest.warns(so.ConvergenceWarning):
            r = so.solve_exact(rng.random((6, 6)), engine="network simplex")
        assert r.status is so.Status.STALLED

    def test_auto_goes_on_to_the_next_engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lie(monkeypatch, lambda C, a, b, _: Flow(np.outer(a, b), 0 * a, 0 * b, 0, True))
        C = rng.random((6, 7))
        r = so.solve_exact(C)
        assert r.method == "exact: highs"
        prove(r, C, np.full(6, 1 / 6), np.full(7, 1 / 7))

    def test_auto_goes_on_where_a_matching_is_no_answer(self, monkeypatch) -> None:
        worst = Flow(np.eye(6)[::-1] / 6, np.zeros(6), np.zeros(6), 0, True)
        monkeypatch.setitem(ENGINES, "assignment", lambda C, a, b, _: worst)
        C = 1 - np.eye(6)
        r = so.solve_exact(C)
        assert r.method == "exact: network simplex"
        prove(r, C, np.full(6, 1 / 6), np.full(6, 1 / 6))

    def test_few_digits_get_more_rounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []
        truth = table.network_simplex

        def coarse(C, a, b, limit) -> Flow:
            seen.append(C)
            return truth(np.round(C, 5), a, b, limit)

        self.lie(monkeypatch, coarse)
        C, u = rng.random((30, 30)), np.full(30, 1 / 30)
        prove(so.solve_exact(C, engine="network simplex"), C, u, u)
        assert 1 < len(seen) <= rounds._ROUNDS


BAD: list[tuple[dict[str, Any], str]] = [
    (dict(engine="simplex"), "engine must be one of 'auto', 'network simplex', 'highs', 'assign"),
    (dict(engine=None), "engine must be one of"),
    (dict(max_iter=0), "max_iter must be a whole number of at least 1, got 0"),
    (dict(max_iter=2.5), "max_iter must be a whole number"),
    (dict(max_iter=True), "max_iter must be a whole number"),
    (dict(a=[0.5, 0.5]), r"a must have shape (..., 3) to fit a cost of (3, 4), got (2,)"),
    (dict(a=[1.0, 1.0, 1.0]), "a and b must have the same total mass, got 3 and 1"),
    (dict(a=[0.5, -0.1, 0.6]), "a must be non-negative, got -0.1 at index 1"),
    (dict(a=[0.0, 0.0, 0.0]), "a must have some positive weight, got all zeros"),
    (dict(b=[1.0, 0.0, 0.0, np.nan]), "b must be finite, got nan at index 3"),
    (dict(cost=[[1.0, np.nan]]), "cost must be a number above -inf, got nan at index (0, 1)"),
    (dict(cost=[[1.0, -INF]]), "cost must be a number above -inf, got -inf at index (0, 1)"),
    (dict(cost=[[INF, INF]]), "cost must allow some pair, got inf everywhere"),
    (dict(cost=[1.0, 2.0]), "cost must have shape (..., n, m), got (2,)"),
    (dict(cost=np.ones((0, 3))), "cost must not be empty, got shape (0, 3)"),
    (dict(cost=np.ones((3, 3), int)), "cost must be floating point, got int64"),
    (dict(cost=np.ones((2, 3, 4)), a=np.full((3, 3), 1 / 3)), "must have leading dimensions that"),
    (dict(engine="assignment"), "as many sources as targets, all of one weight, got 3 and 4"),
    (
        dict(cost=np.ones((2, 3, 3)), a=[[1, 1, 1], [1, 1, 2.0]], b=[[3, 0, 0], [4, 0, 0.0]])
        | dict(engine="assignment"),
        "got 3 and 1 with weights up to a factor of 1 apart in problem 0",
    ),
    (
        dict(cost=np.ones((2, 2)), a=[0.4, 0.6], b=[0.5, 0.5], engine="assignment"),
        "got 2 and 2 with weights up to a factor of 1.5 apart: use engine=",
    ),
]


@pytest.mark.parametrize(("bad", "text"), BAD, ids=[text[:40] for _, text in BAD])
def test_bad_arguments(bad: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        so.solve_exact(bad.get("cost", np.ones((3, 4))), **{k: bad[k] for k in {*bad} - {"cost"}})


@pytest.mark.parametrize("name", ["reg", "n_iter", "tol"])
def test_what_only_solve_takes(name: str) -> None:
    more: dict[str, Any] = {name: 1.0}
    with pytest.raises(TypeError, match=name):
        so.solve_exact(np.ones((2, 2)), **more)
