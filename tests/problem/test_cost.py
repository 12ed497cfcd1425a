"""Costs are what their formulas say, block by block, and far from the origin too."""

import dataclasses
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import sinkhorn_ot as so
from sinkhorn_ot.problem import METRICS, Bounds, as_cost, blocks


def formula(x, y, metric):
    X, Y = x[..., :, None, :], y[..., None, :, :]
    return {
        "sqeuclidean": lambda: (X - Y).square().sum(-1),
        "euclidean": lambda: (X - Y).square().sum(-1).sqrt(),
        "manhattan": lambda: (X - Y).abs().sum(-1),
        "chebyshev": lambda: (X - Y).abs().amax(-1),
        "dot": lambda: -(X * Y).sum(-1),
        "cosine": lambda: 1 - (X * Y).sum(-1) / (X.norm(dim=-1) * Y.norm(dim=-1)),
    }[metric]()


def cloud(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [1, 3, 17])
def test_formulas(metric, d):
    x, y = cloud(7, d), cloud(11, d, seed=1)
    C = so.PointCloud(x, y, metric).flat(torch.Size([1]))
    got = torch.cat([C.rows(0, 3), C.rows(3, 7)], 1)[0]
    torch.testing.assert_close(got, formula(x, y, metric), atol=1e-13, rtol=0)


@pytest.mark.parametrize("metric", METRICS)
def test_bounds_hold(metric):
    for x, y in ((cloud(7, 3), cloud(11, 3, seed=1)), (cloud(1, 3), cloud(1, 3) + 5)):
        C = formula(x, y, metric)
        for cost in (so.PointCloud(x, y, metric), so.Dense(C)):
            bounds = cost.validate()
            assert bounds.low <= float(C.min()) + 1e-12
            assert bounds.high >= float(C.max()) - 1e-12
            assert not bounds.forbids


@pytest.mark.parametrize("metric", METRICS)
def test_bounds_are_those_of_the_widest_problem_of_a_batch(metric):
    x, y = (cloud(3, k, 3, seed=k) for k in (7, 11))
    scale = torch.tensor([1.0, 30.0, 0.1]).double()[:, None, None]
    for left, right in ((scale * x, y), (x, scale * y), (scale * x, scale * y)):
        C, bounds = formula(left, right, metric), so.PointCloud(left, right, metric).validate()
        assert bounds.low <= float(C.min()) + 1e-12
        assert bounds.high >= float(C.max()) - 1e-12


def test_a_metric_is_a_row_of_the_table(monkeypatch):
    cubed = dataclasses.replace(
        METRICS["euclidean"],
        join=lambda left, right: torch.cdist(left, right).pow(3),
        bounds=lambda x, y: Bounds(0.0, float(torch.cdist(x, y).amax()) ** 3),
    )
    monkeypatch.setitem(METRICS, "cubed", cubed)
    x, y = cloud(7, 3), cloud(11, 3, seed=1)
    r = so.solve(so.PointCloud(x, y, "cubed"), reg=1.0)
    same = so.solve(formula(x, y, "euclidean").pow(3), reg=1.0)
    torch.testing.assert_close(r.plan, same.plan, atol=1e-8, rtol=0)


def test_points_whose_squared_distance_is_no_number_are_refused():
    x = torch.tensor([[1e154]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"must have finite costs, got points 2e\+154 apart"):
        so.PointCloud(x, -x).validate()
    assert so.PointCloud(x, -x, "euclidean").validate().high == 2e154


def test_forbidden_pairs_are_seen():
    C = torch.tensor([[1.0, math.inf], [3.0, -2.0]])
    assert so.Dense(C).validate() == (-2.0, 3.0, True)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_distances_far_from_the_origin_keep_their_digits(metric):
    """The textbook |x|^2 - 2 <x, y> + |y|^2 would lose twelve of them here."""
    x, y = cloud(7, 3), cloud(11, 3, seed=1)
    far = 1e6
    C = so.PointCloud(x + far, y + far, metric).flat(torch.Size([1])).rows(0, 7)[0]
    torch.testing.assert_close(C, formula(x + far, y + far, metric), atol=1e-8, rtol=0)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_rounding_makes_no_distance_negative(metric):
    x = cloud(200, 5)
    C = so.PointCloud(x, x, metric).flat(torch.Size([1])).rows(0, 200)[0]
    assert (C >= 0).all()
    assert float(C.diagonal().amax()) < 1e-6


def test_single_precision_points_make_double_precision_costs():
    x, y = cloud(7, 3).float(), cloud(11, 3, seed=1).float()
    C = so.PointCloud(x, y).flat(torch.Size([1])).rows(0, 7)[0]
    torch.testing.assert_close(
        C.double(), formula(x.double(), y.double(), "sqeuclidean"), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 100_000), (1000, 999)])
def test_blocks_cover_every_row_once(n, m):
    C = as_cost(torch.arange(n, dtype=torch.float64)[:, None].expand(n, m)).flat(torch.Size([1]))
    seen = torch.cat([block[0, :, 0] for _, block in blocks(C, 1, torch.float64)])
    assert torch.equal(seen, torch.arange(n, dtype=torch.float64))


def test_a_cost_of_zero_vectors_is_a_number():
    x = torch.zeros(3, 2, dtype=torch.float64)
    C = so.PointCloud(x, cloud(4, 2), "cosine").flat(torch.Size([1])).rows(0, 3)
    assert (C == 1).all()


@pytest.mark.slow(1)
def test_memory_of_a_point_cloud_solve_does_not_grow_with_pairs():
    """Beyond what may be stored, no tensor of n x m entries is made."""
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                seen.append(out.numel())
            return out

    n = 1500
    with Watch():
        x, y = cloud(n, 2), cloud(n, 2, seed=1)
        r = so.solve(so.PointCloud(x, y, memory=n * n * 8 - 1), reg=1.0, tol=1e-2)
        assert float(r.certificate().lower) <= float(r.value)
        r.apply(torch.ones(n).double())
    assert max(seen) < n * n / 20


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "dot", "cosine"])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_what_may_be_held_changes_no_answer(metric, batch):
    x, y = torch.rand(*batch, 50, 3).double(), torch.rand(*batch, 70, 3).double()
    much, none = (so.PointCloud(x, y, metric, memory=k) for k in (1 << 30, 0))
    stored, read = (so.solve(c, reg=0.3, method="sinkhorn") for c in (much, none))
    assert read.converged.all()
    torch.testing.assert_close(read.plan, stored.plan, rtol=1e-6, atol=1e-10)


def test_a_budget_of_memory_stays_with_its_cloud():
    c = so.PointCloud(torch.rand(2, 9, 3), torch.rand(2, 8, 3), "dot", memory=7)
    for one in (c.flat(torch.Size([2])), c.transposed(), c.select(torch.tensor([1]))):
        assert (one.metric, one.memory) == ("dot", 7)


@pytest.mark.parametrize("memory", [-1, 1.5, "1GB", None, True, math.nan])
def test_a_budget_of_memory_is_a_number_of_bytes(memory):
    with pytest.raises(ValueError, match="memory must be"):
        so.PointCloud(torch.rand(9, 3), torch.rand(8, 3), memory=memory)
