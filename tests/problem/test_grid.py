"""Costs of grids are sums over axes, numbered as images are flattened."""

import math

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.problem import Bounds


INF = math.inf


def whole(cost: so.GridCost) -> torch.Tensor:
    """All costs, (n, m), a few rows at a time."""
    flat = cost.flat(torch.Size())
    return torch.cat([C for _, C in flat.tiles(3)], 1)[0]


def plain(x, y, p):
    """The same from points, as a formula."""
    points = [torch.cartesian_prod(*axes).reshape(-1, len(axes)) for axes in (x, y)]
    powers = torch.tensor(p).double()
    return (points[0][:, None] - points[1]).abs().pow(powers).sum(-1)


def axes(*sizes):
    return [torch.linspace(0, 1, n, dtype=torch.float64) for n in sizes]


@pytest.mark.parametrize("p", [1, 1.5, 2])
def test_sizes_are_points_from_zero_to_one(p):
    got = whole(so.GridCost((3, 4, 2), p=p))
    torch.testing.assert_close(got, plain(axes(3, 4, 2), axes(3, 4, 2), [p] * 3))
    image = torch.rand(3, 4, 2).double()
    assert so.solve(so.GridCost(image.shape), image.flatten(), image.flatten(), 0.1).converged


def test_grids_differ_and_axes_have_powers_of_their_own():
    x, y = [torch.tensor([0.3, -1.0, 2.0]).double(), *axes(4)], axes(2, 5)
    cost = so.GridCost(x, y, p=(1, 3))
    torch.testing.assert_close(whole(cost), plain(x, y, [1, 3]))
    torch.testing.assert_close(whole(cost.transposed()), plain(y, x, [1, 3]))
    assert cost.sizes == ((3, 4), (2, 5))
    assert cost.shape == (12, 10)


def test_an_axis_may_say_what_it_costs():
    A, B = torch.rand(3, 2).double(), torch.rand(4, 5).double()
    B[1, 2] = INF
    cost = so.GridCost((A, B))
    wanted = (A[:, None, :, None] + B[None, :, None, :]).reshape(12, 10)
    torch.testing.assert_close(whole(cost), wanted)
    finite = wanted[wanted < INF]
    assert cost.validate() == Bounds(float(finite.min()), float(A.max() + B[B < INF].max()), True)


def test_dtype_and_device_are_those_of_the_axes_or_the_wanted():
    assert so.GridCost((3, 4)).dtype == torch.float64
    assert so.GridCost((3, 4), dtype=torch.float32).dtype == torch.float32
    assert so.GridCost([torch.rand(3), torch.rand(4)]).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((5,), "axes must be a list with an entry per axis, got 5"),
        (((),), "axes must have at least one axis"),
        (((3, 0),), r"axes\[1\] must be a whole number of at least 1, got 0"),
        (((3, 2.5),), r"axes\[1\] must have shape \(n,\) or \(n, m\), got \(\)"),
        (((3, torch.ones(2, 2, 2)),), r"axes\[1\] must have shape \(n,\) or \(n, m\)"),
        (((torch.tensor([0.0, math.nan]),),), r"axes\[0\] must be finite, got nan at index 1"),
        (((torch.full((2, 2), -INF),),), r"axes\[0\] must be a number above -inf"),
        (((torch.full((2, 2), INF),),), r"axes\[0\] must allow some pair"),
        (((3, 4), (3,)), "targets must have 2 axes as axes has, got 1"),
        (((torch.ones(2, 2),), (2,)), r"targets\[0\] must be left out where costs are given"),
        (((torch.ones(2),), (2,)), r"axes\[0\] and targets\[0\] must share a dtype"),
        (((torch.ones(2), 2),), "axes must share a dtype and a device"),
        (((3, 4), None, 0.5), "p must be finite and at least 1, got 0.5"),
        (((3, 4), None, (1, 2, 2)), "p must be one power or one per axis, 2, got 3"),
        (((3, 4), None, "two"), "p must be one number, got 'two'"),
        (((torch.ones(2, requires_grad=True),),), r"axes\[0\] requires grad"),
    ],
    ids=str,
)
def test_what_is_no_grid_is_told(arguments, told):
    with pytest.raises(ValueError, match=told):
        so.GridCost(*arguments)
