"""Pairs on demand: the optimum of all pairs from few, with a proof over all."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot.exact.beyond import choice, coarser, search
from sinkhorn_ot.exact.beyond.pairs import stairs


Array = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small problems take all steps that large ones do: fewer points, few pairs, rounds."""
    monkeypatch.setattr(search, "_WHOLE", 64)
    monkeypatch.setattr(search, "_FIRST", 3)
    monkeypatch.setattr(search, "_MORE", 1)
    monkeypatch.setattr(coarser, "_STAY", 4)


def columns(cost: object, a: object = None, b: object = None, **more: object) -> so.Transport:
    return so.solve_exact(cost, a, b, engine="columns", **more)  # type: ignore[arg-type]


def truth(C: Array, a: Array, b: Array) -> float:
    import ot

    value: Any = ot.emd2(a, b, C, numItermax=10**7)
    return float(value)


def drawn(k: int) -> tuple[object, Array, Array, Array]:
    """Return one of many problems: a cost, all its entries, and weights."""
    rng = np.random.default_rng(k)
    n, m = (int(t) for t in rng.integers(1, 60, 2))
    m = n if k % 4 == 0 else m
    x, y = (torch.from_numpy(rng.random((t, 1 + k % 5))) for t in (n, m))
    if k % 5 == 0:
        # points that coincide, and ties
        x, y = (4 * x).round() / 4, (4 * y).round() / 4
    a, b = (np.ones(t) if k % 3 == 0 else rng.random(t) for t in (n, m))
    if k % 7 == 0:
        a[rng.random(n) < 0.4], b[rng.random(m) < 0.4] = 0.0, 0.0
        a[0], b[0] = 1.0, 1.0
    a, b = a / a.sum(), b / b.sum()
    C = (x[:, None] - y).square().sum(-1)
    if k % 3 == 0:
        return so.PointCloud(x, y), C.numpy(), a, b
    if k % 3 == 1:
        C = torch.from_numpy(rng.standard_normal((n, m))) if k % 2 else C
        return C, C.numpy(), a, b
    return so.Streamed(list(C.split(max(1, n // 3)))), C.numpy(), a, b


def test_it_is_the_optimum_of_many_problems() -> None:
    for k in range(100):
        cost, C, a, b = drawn(k)
        r = columns(cost, a, b)
        assert r.status is so.Status.OPTIMAL, k
        assert abs(float(r.value) - truth(C, a, b)) <= 1e-12 * np.abs(C).max(), k
        P, f, g = r.plan.numpy(), r.f.numpy(), r.g.numpy()
        assert np.abs(P.sum(1) - a).sum() + np.abs(P.sum(0) - b).sum() <= 1e-13, k
        assert (f[:, None] + g <= C + 1e-15 * (k % 3 == 0)).all(), k
        assert abs(float(r.gap)) <= 1e-12, k
        assert r.coupling.P.is_sparse  # type: ignore[attr-defined]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95])
def test_forbidden_pairs_carry_nothing_or_leave_no_plan(share: float) -> None:
    rng = np.random.default_rng(3)
    ends = set()
    for _ in range(15):
        n, m = rng.integers(20, 60, 2)
        C = rng.random((n, m))
        C[rng.random((n, m)) < share] = math.inf
        P = np.where(np.isfinite(C), rng.random((n, m)), 0.0)
        feasible = rng.random() < 0.6
        a, b = (P.sum(1), P.sum(0)) if feasible else (rng.random(n), rng.random(m))
        a, b = a / a.sum(), b / b.sum()
        costs = C, so.Streamed(torch.from_numpy(C))
        told = [so.solve_exact] + [columns] * 2
        found = [_ended(solve, c, a, b) for solve, c in zip(told, (C, *costs), strict=True)]
        ends.add(type(found[0]))
        if isinstance(found[0], float):
            assert found[1:] == pytest.approx([found[0]] * 2, rel=1e-12)
        else:
            assert found == ["so no plan exists"] * 3
    assert float in ends


def _ended(solve: object, cost: object, a: Array, b: Array) -> float | str:
    """Return the value, or why there is no plan: rows that hold more than their columns take."""
    try:
        return float(solve(cost, a, b).value)  # type: ignore[operator]
    except ValueError as error:
        return str(error)[-17:]


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "chebyshev", "dot", "cosine"])
def test_potentials_are_feasible_however_costs_are_computed(metric: str) -> None:
    x, y = torch.rand(2, 70, 3, dtype=torch.float64) * 3 + 50
    cost = so.PointCloud(x, y, metric=metric)
    r, C = columns(cost), cost.flat(torch.Size()).rows(0, 70)[0]
    assert r.status is so.Status.OPTIMAL
    assert bool((r.f[:, None] + r.g <= C).all())
    assert float(r.value) == pytest.approx(float(so.solve_exact(C).value), rel=1e-12)
    turned = torch.stack([cost.flat(torch.Size()).rows(i, i + 1)[0, 0] for i in range(70)])
    assert bool((r.f[:, None] + r.g <= turned).all())


def test_clouds_in_single_precision_and_functions_are_served() -> None:
    x, y = torch.rand(2, 80, 2)

    def root(x: Tensor, y: Tensor) -> Tensor:
        return (x[..., :, None, :] - y[..., None, :, :]).abs().sqrt().sum(-1)

    for metric in ("sqeuclidean", root):
        cost = so.PointCloud(x, y, metric=metric)  # type: ignore[arg-type]
        r = columns(cost)
        assert r.status is so.Status.OPTIMAL
        assert r.f.dtype == torch.float32
        C = cost.flat(torch.Size()).rows(0, 80)[0]
        assert float(r.value) == pytest.approx(float(so.solve_exact(C).value), rel=1e-6)


def test_points_that_coincide_cost_nothing() -> None:
    r = columns(so.PointCloud(torch.ones(50, 3), torch.ones(60, 3)))
    assert r.status is so.Status.OPTIMAL
    assert abs(float(r.value)) <= 1e-15
    same = torch.rand(100, 2, dtype=torch.float64)
    r = columns(so.PointCloud(same, same))
    assert r.status is so.Status.OPTIMAL
    assert float(r.value) == 0.0


def test_a_batch_is_answered_one_by_one() -> None:
    C = torch.rand(3, 40, 50, dtype=torch.float64)
    r = columns(C)
    assert r.coupling.P.shape == C.shape  # type: ignore[attr-defined]
    torch.testing.assert_close(r.value, so.solve_exact(C).value, rtol=1e-12, atol=0)


def test_a_search_out_of_time_tells_bounds_and_a_plan() -> None:
    x, y = torch.rand(2, 300, 2, dtype=torch.float64)
    cost = so.PointCloud(x, y)
    with pytest.warns(so.ConvergenceWarning, match="raise seconds"):
        r = columns(cost, seconds=1e-9)
    assert r.status is so.Status.BUDGET
    best = float(columns(cost).value)
    assert float(r.dual_value) <= best <= float(r.value)
    assert float(r.marginal_error) <= 1e-13


def test_pivots_end_a_search_with_bounds_and_a_plan() -> None:
    C = torch.rand(80, 80, dtype=torch.float64)
    with pytest.warns(so.ConvergenceWarning, match="raise max_iter"):
        r = columns(C, max_iter=3)
    assert r.status is so.Status.MAX_ITER
    best = float(so.solve_exact(C).value)
    assert float(r.dual_value) <= best <= float(r.value)
    assert float(r.marginal_error) <= 1e-13


def test_little_memory_holds_few_pairs_and_ends_all_the_same() -> None:
    C = torch.rand(100, 100, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"memory must be at least (\d+) bytes") as refused:
        columns(C, memory=1000)
    least = int(str(refused.value).split("at least ")[1].split()[0])
    r = columns(C, memory=least + 1)
    assert float(r.value) == pytest.approx(float(so.solve_exact(C).value), rel=1e-12)


@pytest.mark.parametrize("name", ["memory", "seconds"])
def test_other_engines_take_no_budget(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be given with engine='columns' or 'auto'"):
        so.solve_exact(torch.rand(3, 3), engine="highs", **{name: 1})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=name):
        columns(torch.rand(3, 3), **{name: -1})


def test_columns_must_move_all_weights() -> None:
    with pytest.raises(ValueError, match="engine 'columns' must move all weights"):
        columns(torch.rand(3, 3), mass=0.5)


def test_a_stream_is_read_in_any_order() -> None:
    C = torch.rand(60, 40, dtype=torch.float64)
    order = torch.randperm(60)

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        yield from ((part, C[part]) for part in order.split(13))

    r = columns(so.Streamed(blocks))
    assert float(r.value) == pytest.approx(float(so.solve_exact(C).value), rel=1e-12)


@pytest.mark.parametrize("kind", ["cost", "points"])
def test_values_have_the_derivatives_of_the_plan(kind: str) -> None:
    found = []
    for engine in ("columns", "network simplex"):
        x = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        y = x.flip(0) + 0.1
        a = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        a = (a / a.sum()).requires_grad_()
        leaf = (x if kind == "points" else torch.cdist(x, y)).requires_grad_()
        cost = so.PointCloud(leaf, y) if kind == "points" else leaf
        r = so.solve_exact(cost, a, engine=engine)
        r.value.backward()
        found.append(leaf.grad)
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_many_pairs_are_looked_at_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.rand(2, 30, 2, dtype=torch.float64)
    cost = so.PointCloud(x, y)
    monkeypatch.setattr(choice, "SHORT", 30)
    monkeypatch.setattr(choice, "MANY", 901)
    assert "columns" not in so.solve_exact(cost).method
    monkeypatch.setattr(choice, "MANY", 900)
    assert "columns" in so.solve_exact(cost).method
    monkeypatch.setattr(choice, "SHORT", 31)
    assert "columns" not in so.solve_exact(cost).method


def test_stairs_are_a_plan() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (1, 9), (30, 7), (40, 40)):
        a, b = rng.random(n), rng.random(m)
        a, b = a / a.sum(), b / b.sum()
        i, j, mass = stairs(a, b)
        assert len(mass) <= n + m - 1
        np.testing.assert_allclose(np.bincount(i, mass, n), a, atol=1e-15)
        np.testing.assert_allclose(np.bincount(j, mass, m), b, atol=1e-15)
