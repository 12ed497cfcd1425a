"""Rounding: whatever goes in, a feasible plan near it comes out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot.problem import make
from sinkhorn_ot.results import rounding
from sinkhorn_ot.results.coupling import Stored


def held(P: Tensor, a: Tensor, b: Tensor, C: Tensor | None = None) -> Stored:
    C = torch.zeros(P.shape, dtype=torch.float64) if C is None else C
    p = make(C, a, b)
    return Stored(p, P, torch.zeros_like(p.a), torch.zeros_like(p.b))


def off(P: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """L1 error of both marginals, relative to the mass."""
    return ((P.sum(-1) - a).abs().sum(-1) + (P.sum(-2) - b).abs().sum(-1)) / a.sum(-1)


def weights(seed: int, batch: int, size: int, zeros: float) -> Tensor:
    random = np.random.default_rng(seed)
    w = random.dirichlet(np.ones(size), batch) * (random.random((batch, size)) >= zeros)
    w[:, 0] += 0.1
    return torch.from_numpy(w / w.sum(-1, keepdims=True))


@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 7), st.sampled_from([0.0, 0.5]))
def test_any_matrix_becomes_a_plan_near_it(seed: int, n: int, m: int, zeros: float) -> None:
    a, b = weights(seed, 3, n, zeros), weights(seed + 1, 3, m, zeros)
    random = np.random.default_rng(seed)
    P = torch.from_numpy(random.exponential(1 / (n * m), (3, n, m)))
    P *= torch.from_numpy(random.random((3, n, m)) >= zeros)
    before = off(P, a, b)
    Q = rounding.feasible(held(P, a, b)).plan()
    assert (Q >= 0).all()
    assert (off(Q, a, b) <= 1e-14).all()
    assert (Q[(a == 0)[:, :, None].expand_as(Q)] == 0).all()
    assert (Q[(b == 0)[:, None, :].expand_as(Q)] == 0).all()
    # lemma 7 of the paper
    assert ((Q - P).abs().sum((-2, -1)) <= 2 * before + 1e-14).all()


def test_a_feasible_plan_stays() -> None:
    a, b = weights(0, 2, 5, 0.3), weights(1, 2, 6, 0.3)
    P = a[:, :, None] * b[:, None, :]
    torch.testing.assert_close(rounding.feasible(held(P, a, b)).plan(), P, rtol=0, atol=1e-16)


def test_an_empty_plan_becomes_the_product() -> None:
    a, b = weights(0, 2, 5, 0.3), weights(1, 2, 6, 0.3)
    Q = rounding.feasible(held(torch.zeros(2, 5, 6).double(), a, b)).plan()
    torch.testing.assert_close(Q, a[:, :, None] * b[:, None, :], rtol=0, atol=1e-16)


def test_too_much_mass_is_scaled_down_in_place() -> None:
    a, b = weights(0, 1, 5, 0.0), weights(1, 1, 6, 0.0)
    P = a[:, :, None] * b[:, None, :]
    torch.testing.assert_close(rounding.feasible(held(3 * P, a, b)).plan(), P, rtol=0, atol=1e-15)


def test_the_worked_example() -> None:
    P = torch.tensor([[[0.4, 0.2], [0.2, 0.0]]], dtype=torch.float64)
    a, b = (torch.tensor([w], dtype=torch.float64) for w in ([0.3, 0.7], [0.5, 0.5]))
    # row 0 is halved; 0.5 of row 1, 0.1 of column 0 and 0.4 of column 1 are missing
    Q = rounding.feasible(held(P, a, b)).plan()
    np.testing.assert_allclose(Q[0], [[0.2, 0.1], [0.3, 0.4]], atol=1e-16)


def test_columns_that_rounding_leaves_short_where_no_row_is():
    mass, n = 3e16, 21
    x = torch.linspace(0, 1, n, dtype=torch.float64)
    C, a = torch.stack([x, x.flip(0).square()], 1), torch.full_like(x, mass / n)
    r = so.solve(C, a, torch.tensor([0, mass], dtype=torch.float64), 0.1)
    assert torch.isfinite(r.round()).all()
    assert r.certificate().upper == pytest.approx(float(r.certificate().lower), rel=1e-12)


@pytest.mark.parametrize("mass", [1e-200, 1e-9, 1e9, 1e150])
def test_any_mass(mass: float) -> None:
    a, b = mass * weights(0, 2, 5, 0.3), mass * weights(1, 2, 6, 0.3)
    P = mass * torch.rand(2, 5, 6).double() / 30
    Q = rounding.feasible(held(P, a, b)).plan()
    assert (off(Q, a, b) <= 1e-14).all()
    assert (Q >= 0).all()


def test_the_cost_of_the_rounded_plan() -> None:
    a, b, C = weights(0, 2, 5, 0.3), weights(1, 2, 6, 0.3), torch.rand(2, 5, 6).double()
    rounded = rounding.feasible(held(torch.rand(2, 5, 6).double() / 30, a, b, C))
    torch.testing.assert_close(rounded.linear(), (rounded.plan() * C).sum((-2, -1)))


def test_mass_on_a_forbidden_pair_costs_inf() -> None:
    a, b = torch.tensor([[0.5, 0.5]]).double(), torch.tensor([[0.5, 0.5]]).double()
    C = torch.tensor([[[0.0, torch.inf], [torch.inf, 0.0]]]).double()
    exact, short = torch.eye(2).double()[None] / 2, torch.eye(2).double()[None] / 3
    assert rounding.feasible(held(exact, a, b, C)).linear() == 0
    assert rounding.feasible(held(short, a, b, C)).linear() == torch.inf


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n_iter", [1, 30])
def test_the_method_of_a_result(n_iter: int, dtype: torch.dtype) -> None:
    C = torch.rand(3, 1, 8, 9, dtype=dtype)
    a, b = weights(0, 2, 8, 0.4).to(dtype), weights(1, 2, 9, 0.4).to(dtype)
    r = so.solve(C, a, b, reg=0.05, n_iter=n_iter)
    Q = r.round()
    assert Q.shape == (3, 2, 8, 9)
    assert Q.dtype == dtype
    assert (Q >= 0).all()
    assert (off(Q, a, b) <= 20 * torch.finfo(dtype).eps).all()
    assert (Q[:, a == 0] == 0).all()
    assert (Q.mT[:, b == 0] == 0).all()


def test_a_point_cloud() -> None:
    x, y = torch.rand(7, 2).double(), torch.rand(9, 2).double()
    r = so.solve(so.PointCloud(x, y), reg=0.1, n_iter=2)
    a, b = torch.ones(7).double() / 7, torch.ones(9).double() / 9
    assert float(off(r.plan, a, b)) > 1e-6
    assert float(off(r.round(), a, b)) <= 1e-14


def test_a_relaxed_marginal_is_refused() -> None:
    r = so.solve(torch.rand(3, 4).double(), reg=0.1, unbalanced=(None, 1.0))
    with pytest.raises(ValueError, match=r"round\(\) needs exact marginals, got unbalanced="):
        r.round()
