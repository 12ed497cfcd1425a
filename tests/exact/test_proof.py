"""Proofs of whole batches: potentials feasible to the last digit, ties, zeros, offsets, blocks."""

import numpy as np
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.exact import proof
from sinkhorn_ot.exact.engines.batched import along_forest, of_matching, simplexes
from sinkhorn_ot.exact.engines.choice import as_matching


INF = float("inf")


def draw(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(3)
    C = rng.random(shape)
    return {
        "uniform": C,
        "ties": np.round(3 * C) - 1,
        "offset": C + 1e6,
        "row offsets": C + 1e6 * rng.normal(size=(*shape[:-1], 1)),
        "float32": C.astype(np.float32).astype(float),
        "tenths": np.round(10 * C) / 10,
        "forbidden": np.where(rng.random(shape) < 0.3, INF, C),
        "magnitudes": 10 ** (16 * C - 8),
        "huge": C * 1e300,
        "tiny": C * 5e-310,
        "zero": np.zeros(shape),
    }[kind]


KINDS = ["uniform", "ties", "offset", "row offsets", "float32", "tenths", "forbidden"]
KINDS += ["magnitudes", "huge", "tiny", "zero"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", [1, 37, 1 << 17])
@pytest.mark.parametrize("shape", [(1, 17, 65), (5, 9, 4), (1, 1, 1), (3, 1, 8), (2, 300, 3)])
def test_lowered_is_the_row_minimum_rounded_down(monkeypatch, kind, tile, shape) -> None:
    monkeypatch.setattr(proof, "_TILE", tile)
    C, wide = draw(kind, shape), np.longdouble
    size = np.abs(C[np.isfinite(C)]).max()
    t = size * np.random.default_rng(0).normal(size=(shape[0], shape[2]))
    f = proof.lowered(C, t)
    some = np.isfinite(C).any(2)
    assert (f[~some] == 0).all()
    exact = (C.astype(wide) - t.astype(wide)[:, None]).min(2)[some]
    assert (f[some].astype(wide) <= exact).all()
    # and no more than one digit below
    assert (np.nextafter(f[some], INF).astype(wide) >= exact).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", [1, 37, 1 << 17])
def test_reduced_costs_are_between_zero_and_one(monkeypatch, kind, tile) -> None:
    monkeypatch.setattr(proof, "_TILE", tile)
    C = draw(kind, (4, 12, 15))
    before = C.copy()
    r = proof.reduced(C)
    assert np.array_equal(C, before)
    allowed = np.isfinite(C)
    assert ((r.R == INF) == ~allowed).all()
    assert (r.R >= 0).all()
    assert (r.R[allowed] <= 1).all()
    again = r.f[:, :, None] + r.g[:, None] + r.unit[:, None, None] * r.R
    np.testing.assert_allclose(again[allowed], C[allowed], rtol=1e-14, atol=1e-300)


def test_a_cost_that_all_share_is_read_as_each_ones_own() -> None:
    rng = np.random.default_rng(0)
    C, g = rng.random((1, 6, 7)), rng.normal(size=(4, 7))
    b = rng.random((4, 7)) * (rng.random((4, 7)) > 0.5)
    shared, own = (proof.settled(c, g, b) for c in (C, np.repeat(C, 4, 0)))
    for one, other in zip(shared, own, strict=True):
        np.testing.assert_array_equal(one, other)
    P, a = rng.random((4, 6, 7)), rng.random((4, 6))
    for c in (C, np.repeat(C, 4, 0)):
        x = proof.measured(c, P, *shared, a, b)
        slack = (P * (C - shared[0][:, :, None] - shared[1][:, None])).sum((1, 2))
        np.testing.assert_allclose(x.slack, slack, rtol=1e-12)
        off = np.abs(P.sum(2) - a).sum(1) + np.abs(P.sum(1) - b).sum(1)
        np.testing.assert_allclose(x.marginal_error, off / a.sum(1), rtol=1e-12)
        gap = (P * C).sum((1, 2)) - (shared[0] * a).sum(1) - (shared[1] * b).sum(1)
        np.testing.assert_allclose(x.gap, gap, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("equal", [False, True])
def test_a_batch_is_proved_and_equals_its_problems(kind: str, equal: bool) -> None:
    C = draw(kind, (6, 11, 11))
    C[:, np.arange(11), np.arange(11)] = np.where(np.isfinite(C), C, 0).max()
    rng = np.random.default_rng(1)
    a = rng.integers(0, 4, (6, 11)) + 1e-3 * np.eye(11)[0]
    a = np.ones((6, 11)) if equal else a / a.sum(1, keepdims=True)
    r = so.solve_exact(C, a, a)
    assert r.statuses == [so.Status.OPTIMAL] * 6
    f, g, wide = r.f.numpy(), r.g.numpy(), np.longdouble
    assert (f.astype(wide)[:, :, None] + g.astype(wide)[:, None] <= C.astype(wide)).all()
    for k in range(6):
        one = so.solve_exact(C[k], a[k], a[k])
        assert torch.equal(one.plan, r.plan[k])
        assert float(abs(one.marginal_error - r.marginal_error[k])) <= 1e-15
        digit = 4 * np.finfo(float).eps * np.abs(C[k][np.isfinite(C[k])]).max()
        for name in ("f", "g"):
            torch.testing.assert_close(getattr(one, name), getattr(r, name)[k], rtol=0, atol=digit)
        other = so.solve_exact(C[k], a[k], a[k], engine="highs")
        size = float(np.abs(C[k][np.isfinite(C[k])]).max()) * a[k].sum()
        assert float(one.value) == pytest.approx(float(other.value), abs=1e-12 * size)


def test_groups_of_problems_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    C, a = rng.random((7, 5, 5)), rng.dirichlet(np.ones(5), 7)
    a[::2] = 0.2
    whole = so.solve_exact(C, a, a)
    monkeypatch.setattr("sinkhorn_ot.exact.rounds._TOGETHER", 50)
    parts = so.solve_exact(C, a, a)
    assert whole.method == parts.method == "exact: assignment and network simplex"
    assert torch.equal(whole.plan, parts.plan)
    assert torch.equal(whole.f, parts.f)


def test_one_problem_of_a_batch_that_needs_more_rounds() -> None:
    # beside 1e30 the first round sees no digit of the other costs
    C = np.random.default_rng(0).random((3, 8, 9))
    C[1, 0, :3] = 1e30
    r = so.solve_exact(C)
    assert r.converged.all()
    assert torch.equal(r.plan[0], so.solve_exact(C[0]).plan)
    cheap = so.solve_exact(np.where(C[1] > 1, 1e3, C[1]))
    assert float(r.value[1]) == pytest.approx(float(cheap.value), rel=1e-12)


def test_potentialsalong_forests() -> None:
    # two trees and a node alone: 0-3-1-4, 2-5, 6
    source, target, c = np.array([0, 1, 1, 2]), np.array([3, 3, 4, 5]), np.array([1.0, 5, 2, 7])
    start = np.array([10.0, 0, 20, 0, 0, 0, 30])
    x = along_forest(source, target, c, start)
    np.testing.assert_array_equal(x, [10, 14, 20, -9, -12, -13, 30])


@pytest.mark.parametrize("n", [7, 130])
def test_a_long_chain_of_targets_is_followed(n: int) -> None:
    C = np.full((2, n, n), 500.0)
    i = np.arange(n - 1)
    C[:, np.arange(n), np.arange(n)], C[:, i, i + 1] = 1.0, 0.5
    C[1] = C[1][:, ::-1]
    match = np.stack([np.arange(n), np.arange(n)[::-1]])
    f, g = of_matching(C, match, np.zeros((2, n)))
    assert (f[:, :, None] + g[:, None] <= C + 1e-12).all()
    np.testing.assert_allclose((f + np.take_along_axis(g, match, 1)), 1.0)


def test_the_simplex_leaves_out_points_without_weight() -> None:
    C = np.random.default_rng(0).random((1, 4, 5))
    a, b = np.array([[0, 0.5, 0.5, 0]]), np.array([[0.2, 0.3, 0, 0.5, 0]])
    many = simplexes(C, a, b, None)
    assert many.finished.all()
    np.testing.assert_allclose(many.P.sum(2), a)
    np.testing.assert_allclose(many.P.sum(1), b)


class TestChoice:
    """What "auto" matches."""

    def test_only_equal_weights_on_as_many_points(self) -> None:
        R, u = np.random.default_rng(0).random((1, 9, 9)), np.full((1, 9), 1 / 9)
        assert as_matching(R, u, u).all()
        assert not as_matching(R[:, :8], u[:, :8], u).any()
        bent = u.copy()
        bent[0, 0] *= 1 + 1e-12
        assert not as_matching(R, bent, u).any()
        assert not as_matching(R, u, bent).any()
        assert not as_matching(R, u * (u < 0), u).any()
        R[0, 3, 3] = INF
        assert not as_matching(R, u, u).any()

    def test_large_problems_must_vary_in_many_directions(self) -> None:
        rng = np.random.default_rng(0)
        u = np.full((1, 200), 1 / 200)
        x, y = rng.normal(size=(2, 200, 2))
        plane = ((x[:, None] - y) ** 2).sum(-1)
        assert not as_matching(plane[None], u, u).any()
        assert as_matching(rng.random((1, 200, 200)), u, u).all()
        assert not as_matching(np.zeros((1, 200, 200)), u, u).any()


class TestForbiddenPairs:
    """What allowed pairs carry is asked only where the plan does not show it."""

    def test_a_proved_plan_needs_no_routing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(*_: object) -> None:
            raise AssertionError("the plan is the proof")

        monkeypatch.setattr("sinkhorn_ot.exact.routes.network_simplex", never)
        C = draw("forbidden", (3, 30, 31))
        r = so.solve_exact(C)
        assert r.converged.all()
        assert (r.plan.numpy()[np.isinf(C)] == 0).all()

    def test_others_of_a_batch_are_routed_each_on_its_own(self) -> None:
        C = np.full((3, 4, 4), 1.0)
        C[1, :2, 2:] = C[1, 2:, :2] = INF
        a, b = np.full(4, 0.25), np.array([0.25 + 1e-6, 0.25, 0.25 - 1e-6, 0.25])
        narrow = torch.tensor(C, dtype=torch.float32)
        r = so.solve_exact(narrow, torch.tensor(a).float(), torch.tensor(b).float())
        assert r.statuses == [so.Status.OPTIMAL] * 3
        given = torch.tensor(b).float().double()
        torch.testing.assert_close(r.problem.b[0], given / given.sum(), rtol=1e-15, atol=0)
        assert abs(float(r.problem.b[1, :2].sum() - r.problem.a[1, :2].sum())) < 1e-15
        with pytest.raises(ValueError, match=r"in problem 1: .* no plan exists"):
            so.solve_exact(C, a, b)
