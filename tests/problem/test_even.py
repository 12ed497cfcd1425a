"""Weights given in single precision, beside pairs that are forbidden: groups have equal masses."""

import math

import pytest
import torch

import sinkhorn_ot as so


def blocks(n: int, seed: int = 0):
    """Return costs of three groups that only serve each other, and float32 weights for them."""
    g = torch.Generator().manual_seed(seed)
    row, column = (torch.arange(n) % 3 for _ in range(2))
    C = torch.rand(n, n, generator=g, dtype=torch.float64)
    C = C.masked_fill(row[:, None] != column, math.inf)
    a, b = (torch.rand(n, generator=g, dtype=torch.float64) for _ in range(2))
    for k in range(3):
        b[column == k] *= a[row == k].sum() / b[column == k].sum()
    return C, (a / a.sum()).float(), (b / b.sum()).float()


@pytest.mark.parametrize("n", [6, 30, 200])
def test_groups_of_rounded_weights_are_solved_to_tol(n):
    C, a, b = blocks(n)
    group = torch.arange(n) % 3
    off = max(abs(float((a - b).double()[group == k].sum())) for k in range(3))
    assert off > 1e-9
    r = so.solve(C, a, b, 0.1, on_fail="raise")
    assert float(r.marginal_error) < 1e-9
    torch.testing.assert_close(r.plan.sum(0), b.double(), rtol=1e-6, atol=0)
    batch = so.solve(C, torch.stack([a, a]), b, torch.tensor([0.1, 0.2]), on_fail="raise")
    torch.testing.assert_close(batch.plan[0], r.plan, atol=1e-8, rtol=0)


def test_points_without_weight_join_no_groups():
    C, a, b = blocks(30)
    C[0], a[0] = 0.5, 0.0
    group = torch.arange(30) % 3
    b[group == 0] *= a[group == 0].sum() / b[group == 0].sum()
    assert so.solve(C, a / a.sum(), b / b.sum(), 0.1, on_fail="raise").converged


def test_more_than_rounding_is_left_alone_and_told():
    C, a, b = blocks(30)
    b[0], b[1] = b[0] * 1.001, b[1] - 0.001 * b[0]
    r = so.solve(C, a, b, 0.1, on_fail="ignore")
    assert r.status is so.Status.INFEASIBLE
    assert "float64" not in r.message


def test_rounding_that_no_group_shows_is_named():
    """Rows 0 and 1 may use two columns only, but others may use these too."""
    inf = math.inf
    C = torch.tensor([[1, inf, inf, inf], [1, 1, inf, inf], [1, 1, 1, 1], [1, 1, 1, 1.0]]).double()
    a, b = torch.tensor([0.1, 0.2000001, 0.2999999, 0.4]), torch.tensor([0.1, 0.2, 0.35, 0.35])
    r = so.solve(C, a, b, 0.1, on_fail="ignore")
    assert r.status is so.Status.INFEASIBLE
    assert "the rounding of weights that were given in less than float64" in r.message
    r = so.solve(C, a.double(), b.double(), 0.1, on_fail="ignore")
    assert "rounding of weights" not in r.message
