"""Pairs that are forbidden or dear beyond all others, and problems far apart in scale."""

import math
import re

import numpy as np
import pytest
import torch
from derived.bisection import at_lambda, information, published, random

import sinkhorn_ot as so


INF = math.inf
distance = so.sinkhorn_distance


@pytest.mark.parametrize("off", [-5e-4, -8e-5, -1e-5, 1e-5])
def test_the_least_divergence_has_all_digits_where_alpha_is_close(off: float):
    """Column 2 is for row 0 only, which it fills: there is one plan, whose divergence is known."""
    C = np.array([[0.47, 0.47, 0.93, 0.15], [1.0, 1.0, INF, 0.34]])
    light = 2.00661708e-7
    a, b = np.array([light, 1 - light]), np.array([7.889e-6, 1e-7, light, 0.0])
    b[3] = 1 - b.sum()
    least = -light * math.log(light) - (1 - light) * math.log1p(-light)
    if off < 0:
        with pytest.raises(ValueError, match="alpha must be at least") as raised:
            distance(C, a, b, alpha=least * (1 + off))
        told = re.search(r"at least ([^,]*),", str(raised.value))
        assert told is not None
        assert float(told[1]) == pytest.approx(least, rel=1e-8)
    else:
        assert distance(C, a, b, alpha=least * (1 + off)).kl <= least * (1 + 2e-5)


def forbidden():
    C, a, b, _ = random(8)
    C[0, 0] = C[1, 2] = INF
    return C, a, b


def test_forbidden_pairs_leave_a_least_divergence():
    C, a, b = forbidden()
    with pytest.raises(ValueError, match=r"alpha must be at least 0\.\d+, .* costs inf$") as caught:
        distance(C, a, b, alpha=0)
    least = float(re.findall(r"at least (\S+),", str(caught.value))[0])
    # the closest plan on allowed pairs, by scaling a b^T on them
    P, _ = at_lambda(np.where(np.isinf(C), INF, 0.0), a, b, 1.0, np.zeros_like(b))
    assert least == pytest.approx(information(P, a, b), rel=1e-8)
    with pytest.raises(ValueError, match="alpha must be at least"):
        distance(C, a, b, alpha=0.99 * least)
    r = distance(C, a, b, alpha=2 * least + 0.1, on_fail="raise")
    value, _ = published(C, a, b, 2 * least + 0.1)
    assert float(r.value) == pytest.approx(value, rel=1e-9)
    assert float(r.plan[0, 0] + r.plan[1, 2]) == 0
    near = distance(C, a, b, alpha=least * (1 + 1e-7), on_fail="raise")
    assert float(near.value) == pytest.approx((P * np.where(np.isinf(C), 0, C)).sum(), rel=1e-2)
    exact = so.solve_exact(C, a, b)
    assert float(distance(C, a, b, alpha=INF).value) == pytest.approx(
        float(exact.value_linear), rel=1e-12
    )


def test_pairs_forbidden_to_points_without_weight_leave_independence():
    a = torch.rand(15, dtype=torch.float64)
    a[::3] = 0
    C = torch.rand(15, 2, dtype=torch.float64)
    C[::3] = INF
    for columns in (C, C[:, :1]):
        r = distance(columns, a / a.sum(), alpha=0)
        assert r.converged
        assert float(r.kl) <= 1e-15


def test_forbidden_pairs_that_leave_one_plan_or_none():
    only = torch.tensor([[1.0, INF], [INF, 2.0]], dtype=torch.float64)
    r = distance(only, alpha=math.log(2))
    assert float(r.value) == pytest.approx(1.5, rel=1e-15)
    assert r.converged
    with pytest.raises(ValueError, match=r"alpha must be at least 0\.693147"):
        distance(only, alpha=0.69)
    # what is allowed, and yet can carry nothing
    stairs = torch.tensor([[1, INF, INF], [1, 2, INF], [1, 3, 1]], dtype=torch.float64)
    assert float(distance(stairs, alpha=1.2).value) == pytest.approx(4 / 3, rel=1e-12)
    none = torch.tensor([[1, INF, INF], [1, INF, INF], [1, 3, 1]], dtype=torch.float64)
    with pytest.raises(ValueError, match="no plan exists"):
        distance(none, alpha=1.2)


@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0])
@pytest.mark.parametrize(
    "far", [1e3, 1e6, 1e9, 1e12, 1e13, 1e14, 1e16, 1e20, 1e25, 1e40, 1e60, 1e100, 1e200, 1e308]
)
def test_a_dear_pair_that_no_plan_uses_is_as_good_as_forbidden(alpha: float, far: float):
    C = torch.tensor([[0.0, 1.0, far], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]], dtype=torch.float64)
    for cost in (C, C.clamp(min=0.1), C - 1.0):
        want = distance(cost.masked_fill(cost > 2.0, INF), alpha=alpha, on_fail="raise")
        found = distance(cost, alpha=alpha, on_fail="raise")
        assert float(found.value) == pytest.approx(float(want.value), rel=1e-8)
        assert float(found.gap) <= 1e-8 * abs(float(want.value))
        assert float(found.reg) == pytest.approx(float(want.reg), rel=1e-5)
        torch.testing.assert_close(found.plan, want.plan, rtol=0, atol=1e-7)


@pytest.mark.parametrize("far", [1e10, 1e14, 1e40, 1e300])
def test_a_dear_pair_that_every_plan_uses_is_what_counts(far: float):
    """With less divergence than nearer pairs need, the dear one carries some."""
    C = torch.tensor([[0.0, 1.0, far], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]], dtype=torch.float64)
    only = torch.zeros_like(C)
    only[0, 2] = 1.0
    found, want = (distance(cost, alpha=0.05, on_fail="raise").value for cost in (C, only))
    assert float(found) / far == pytest.approx(float(want), rel=1e-7)


@pytest.mark.parametrize("unit", [1e6, 1e16, 1e40, -1e16, 1e250])
def test_problems_of_a_batch_keep_their_units(unit: float):
    C = torch.rand(3, 4, 5, dtype=torch.float64)
    C[1] *= unit
    found = distance(C, alpha=[0.2, 0.3, 100.0], on_fail="raise")
    for k, alpha in enumerate((0.2, 0.3, 100.0)):
        one = distance(C[k], alpha=alpha)
        assert float(found.value[k]) == pytest.approx(float(one.value), rel=1e-9)
        torch.testing.assert_close(found.plan[k], one.plan, rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match=r"alpha must be at least .* in problem 1"):
        distance(C.masked_fill(C[1].amin() == C, INF), alpha=[1.0, 1e-9, 1.0])
