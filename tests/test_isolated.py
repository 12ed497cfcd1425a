"""Relaxed marginals where pairs are forbidden: points that none may use, and costs far from zero.

A relaxed point without partners carries nothing, and its penalty is rho times its weight: the truth
is that of the problem without it, plus that constant.
"""

import importlib
import itertools
import math

import numpy as np
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.problem import make
from sinkhorn_ot.solvers import steps


INF = math.inf
RHO = [(1, 1), (0.1, 0.1), (0, 1), (1, 0), (None, 1), (1, None), (0.5, 0), (0, 0), (50, 20)]
CASES = [
    pytest.param(rho, side, id=f"{rho}-{side}")
    for rho, side in itertools.product(RHO, ("row", "column", "both"))
    # an exact point must have a partner
    if not (rho[0] is None and side != "column") and not (rho[1] is None and side != "row")
]


def cut(C, side, row=2, column=1):
    """Forbid all pairs of a row, of a column, or of both."""
    C = C.clone()
    if side in ("row", "both"):
        C[row] = INF
    if side in ("column", "both"):
        C[:, column] = INF
    return C


def truth(C, a, b, reg, rho):
    """Return the plan and the value by a judge that sees only points with partners."""
    rho = tuple(INF if r is None else float(r) for r in rho)
    allowed = torch.isfinite(C) & (a[:, None] > 0) & (b[None, :] > 0)
    rows, columns = allowed.any(1), allowed.any(0)
    plan, value = torch.zeros_like(C), 0.0
    if rows.any():
        known = testing.judge(C[rows][:, columns], a[rows], b[columns], reg, rho)
        plan[rows.nonzero(), columns.nonzero()[:, 0]] = known.plan
        value = known.value
    for r, weight, kept in zip(rho, (a, b), (rows, columns), strict=True):
        value += r * float(weight[~kept].sum()) if 0 < r < INF else 0.0
    whole, left = a.sum() * b.sum(), a[rows].sum() * b[columns].sum()
    return plan, value + reg * float(whole - left)


def agrees(r, C, a, b, reg, rho, atol=1e-10):
    plan, value = truth(C, a, b, reg, rho)
    torch.testing.assert_close(r.plan, plan.to(r.plan.dtype), atol=atol, rtol=0)
    assert float(r.value) == pytest.approx(value, abs=10 * atol)
    assert float(r.dual_value) == pytest.approx(value, abs=10 * atol)
    assert float(r.marginal_error) <= 10 * atol
    assert r.f.isfinite().all()
    assert r.g.isfinite().all()


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("rho", "side"), CASES)
def test_the_judge_without_them(rho, side, zeros):
    p = testing.random(7, 9, 0.1, zeros=zeros, seed=3)
    C = cut(p.cost, side)
    r = so.solve(C, p.a, p.b, 0.1, unbalanced=rho, tol=1e-12)
    assert r.converged
    agrees(r, C, p.a, p.b, 0.1, rho)


@pytest.mark.parametrize(
    ("rho", "side"), [((1, 1), "both"), ((0, 1), "column"), ((None, 1), "column"), ((1, 0), "row")]
)
@pytest.mark.parametrize("shape", [(3, 40), (40, 3), (5, 5)], ids=str)
def test_in_single_precision_and_any_shape(rho, side, shape):
    p = testing.random(*shape, 0.1)
    C = cut(p.cost, side).float()
    r = so.solve(C, p.a, p.b, 0.1, unbalanced=rho)
    assert r.converged
    agrees(r, C.double(), p.a, p.b, 0.1, rho, atol=1e-5)


@pytest.mark.parametrize(
    ("C", "reg", "rho"),
    [
        ([[0, INF]], 1.0, (0.1, 0.1)),
        ([[0, INF]], 1.0, (0, 1)),
        ([[0, INF]], 1.0, (1, 0)),
        ([[0], [INF]], 1.0, (0, 1)),
        ([[0], [INF]], 1.0, (1, 0)),
        ([[0, INF]], 1.0, (None, 0)),
        ([[0], [INF]], 1.0, (0, None)),
    ],
)
def test_two_pairs_of_which_one_is_forbidden(C, reg, rho):
    C = torch.tensor(C, dtype=torch.float64)
    a, b = testing.uniform(C.shape[0]), testing.uniform(C.shape[1])
    r = so.solve(C, a, b, reg, unbalanced=rho)
    assert r.converged
    agrees(r, C, a, b, reg, rho, atol=1e-9)
    assert abs(float(r.gap)) < 1e-9


def test_a_plan_that_was_right_is_said_to_be():
    """[[0, inf]] with reg 1 and rho 0.1: one number, found by hand.

    With p the mass, <P, C> is 0 and p must answer p = 0.5 (p / 1)^-0.1 (p / 0.5)^-0.1.
    """
    r = so.solve(torch.tensor([[0.0, INF]]).double(), reg=1.0, unbalanced=0.1)
    p = float(r.plan[0, 0])
    assert p == pytest.approx(0.52973, abs=1e-5)
    assert p == pytest.approx(0.5 * p**-0.1 * (p / 0.5) ** -0.1, rel=1e-9)
    assert r.plan[0, 1] == 0
    assert int(r.n_iter) < 20


@pytest.mark.parametrize("rho", [(1, 1), (0.1, 2), (0, 1), (1, 0), (1, None), (None, 1)], ids=str)
@pytest.mark.parametrize("reg", [0.1, 0.01])
def test_a_batch_whose_problems_differ(rho, reg):
    """Nothing forbidden, a row, a column, both, and all: each has its own constant."""
    p = testing.random(6, 8)
    sides = ["none", "row", "column", "both"]
    if rho[0] is None:
        sides = ["none", "column"]
    if rho[1] is None:
        sides = ["none", "row"]
    C = torch.stack([cut(p.cost, side) for side in sides])
    if None not in rho:
        C = torch.cat([C, torch.full_like(C[:1], INF)])
    r = so.solve(C, p.a, 1.5 * p.b, reg, unbalanced=rho, tol=1e-12)
    assert r.converged.all()
    for k in range(len(C)):
        plan, value = truth(C[k], p.a, 1.5 * p.b, reg, rho)
        torch.testing.assert_close(r.plan[k], plan, atol=1e-10, rtol=0)
        assert float(r.value[k]) == pytest.approx(value, abs=1e-9)
        assert float(r.gap[k]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("rho", [(1, 1), (0, 1), (1, 0)], ids=str)
@pytest.mark.parametrize("reg", [0.5, 0.01])
def test_one_cost_for_weights_that_differ(rho, reg):
    """Whether a point has a partner depends on who weighs something."""
    p = testing.random(5, 6)
    C = p.cost.clone()
    C[0, 1:] = INF
    a, b = p.a.repeat(4, 1), p.b.repeat(4, 1)
    # row 0 has no partner; nor has anything that weighs; and a point set aside beside zeros
    b[1, 0] = 0
    a[2], b[2, 0] = torch.eye(5, dtype=torch.float64)[0], 0
    a[3, 2], b[3, 0], b[3, 4] = 0, 0, 0
    r = so.solve(C, a, b, reg, unbalanced=rho, tol=1e-12)
    assert r.converged.all()
    for k in range(4):
        plan, value = truth(C, a[k], b[k], reg, rho)
        torch.testing.assert_close(r.plan[k], plan, atol=1e-10, rtol=0)
        assert float(r.value[k]) == pytest.approx(value, abs=1e-9)
        assert float(r.gap[k]) == pytest.approx(0, abs=1e-9)
    assert (r.plan[2] == 0).all()
    assert r.marginal_error[2] == 0


@pytest.mark.parametrize("rho", [(1, 1), (0.5, 0), (0, 1)], ids=str)
def test_rows_that_are_read(rho):
    p = testing.random(9, 7, 0.1)
    C = cut(p.cost, "both")
    order = [torch.tensor([5, 2, 8]), torch.tensor([0, 1, 3]), torch.tensor([4, 6, 7])]
    costs = so.Streamed([(rows, C[rows]) for rows in order])
    r = so.solve(costs, p.a, p.b, 0.1, unbalanced=rho, tol=1e-12)
    assert r.converged
    agrees(r, C, p.a, p.b, 0.1, rho)


@pytest.mark.slow(1)
@pytest.mark.parametrize("looked", [True, False])
@pytest.mark.parametrize(("rho", "side"), CASES)
def test_a_fixed_number_of_sweeps(rho, side, looked, monkeypatch):
    """Nor does it matter whether anybody has looked at the cost, as on CUDA nobody does."""
    if not looked:
        # the function has the name of its module
        module = importlib.import_module("sinkhorn_ot.solve.call")
        monkeypatch.setattr(module, "_on_cpu", lambda cost: False)
    p = testing.random(7, 9, 0.2)
    C = cut(p.cost, side)
    r = so.solve(C, p.a, p.b, 0.2, unbalanced=rho, n_iter=400)
    assert r.status is so.Status.FIXED
    agrees(r, C, p.a, p.b, 0.2, rho)


@pytest.mark.parametrize(("rho", "side"), [((1, 1), "both"), ((None, 1), "column")])
def test_a_warm_start_is_an_answer(rho, side):
    p = testing.random(7, 9, 0.1)
    C = cut(p.cost, side)
    first = so.solve(C, p.a, p.b, 0.1, unbalanced=rho, tol=1e-12)
    again = so.solve(C, p.a, p.b, 0.1, unbalanced=rho, tol=1e-10, init=first)
    assert int(again.n_iter) <= 2
    agrees(again, C, p.a, p.b, 0.1, rho)


@pytest.mark.slow(2)
@pytest.mark.parametrize("turned", [False, True])
def test_lonely_points_cost_no_sweeps(turned):
    """Scene flow: pairs within some distance, and targets that nothing is near to."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 40, (512, 2)), rng.uniform(0, 40, (512, 2))
    y[:40] += 1000.0
    D = torch.from_numpy(np.linalg.norm(x[:, None] - y[None], axis=-1))
    C = D.masked_fill(D > 10, INF)
    near = C[:, 40:]
    a, b = testing.uniform(512), testing.uniform(512)
    if turned:
        r = so.solve(C.T, b, a, 0.5, unbalanced=1.0)
        fewer = so.solve(near.T, b[40:], a, 0.5, unbalanced=1.0)
    else:
        r = so.solve(C, a, b, 0.5, unbalanced=1.0)
        fewer = so.solve(near, a, b[40:], 0.5, unbalanced=1.0)
    assert r.converged
    assert int(r.n_iter) <= int(fewer.n_iter) + 5
    stays = (1.0 + 0.5) * 40 / 512
    assert float(r.value) == pytest.approx(float(fewer.value) + stays, abs=1e-9)
    assert float(r.gap) == pytest.approx(0, abs=1e-9)


def test_the_weights_set_aside_follow_their_problem():
    p = testing.random(4, 5)
    C = torch.stack([p.cost, cut(p.cost, "row"), cut(p.cost, "column")])
    made = make(C, p.a, p.b, 0.1, 1.0)
    a, b = made.aside
    assert a[:, 2].tolist() == [0.0, float(p.a[2]), 0.0]
    assert b[:, 1].tolist() == [0.0, 0.0, float(p.b[1])]
    torch.testing.assert_close(made.masses[0], p.a.sum().expand(3))
    some = made.select(torch.tensor([2, 1]))
    assert torch.equal(some.aside[0], a[[2, 1]])
    turned = some.transposed()
    assert torch.equal(turned.aside[0], b[[2, 1]])
    assert torch.equal(turned.aside[1], a[[2, 1]])
    assert turned.at(torch.ones(2)).aside is turned.aside
    # what is taken off later is added
    more = made.without(made.a > 0, made.b > 10)
    torch.testing.assert_close(more.aside[0], p.a.expand(3, 4))
    assert make(p.cost, p.a, p.b, 0.1, 1.0).aside is None


def test_an_exact_point_without_a_partner_is_named():
    C = torch.stack([torch.ones(3, 4), cut(torch.ones(3, 4), "both")]).double()
    with pytest.raises(ValueError, match="row 2 of problem 1 has positive a"):
        so.solve(C, reg=0.1, unbalanced=(None, 1))
    with pytest.raises(ValueError, match="column 1 of problem 1 has positive b"):
        so.solve(C, reg=0.1, unbalanced=(1, None))


@pytest.mark.parametrize("rho", [(1, None), (None, 1), (0, None), (None, 0), (30, None)], ids=str)
@pytest.mark.parametrize("offset", [-1e6, -1e4, -100.0, 100.0, 1e4, 1e6])
@pytest.mark.parametrize("shape", [(2, 2), (4, 17), (17, 4)], ids=str)
def test_beside_an_exact_marginal_an_offset_changes_no_plan(rho, offset, shape):
    p = testing.random(*shape, 0.1)
    known, value = truth(p.cost, p.a, p.b, 0.1, rho)
    r = so.solve(p.cost + offset, p.a, p.b, 0.1, unbalanced=rho)
    assert r.converged
    assert int(r.n_iter) < 80
    # a share of tol of the mass is missing, and costs as much as the rest
    digits = 1e-8 + 1e-9 * abs(offset)
    torch.testing.assert_close(r.plan, known, atol=1e-8 + 1e-15 * abs(offset) / 0.1, rtol=0)
    assert float(r.value) == pytest.approx(value + offset, abs=digits)
    assert float(r.gap) == pytest.approx(0, abs=digits)
    again = so.solve(p.cost + offset, p.a, p.b, 0.1, unbalanced=rho, init=r, tol=1e-8)
    assert int(again.n_iter) <= 2


@pytest.mark.parametrize("rho", [(1, None), (None, 1)], ids=str)
def test_costs_that_begin_out_of_range(rho):
    """Beside exact columns the first sweep carries e^5000 times too much, and the next mends it."""
    C = -1e4 * testing.random(6, 8).cost
    cold = so.Sinkhorn(anneal=None)
    plain = so.solve(C, reg=1.0, unbalanced=rho, method=cold)
    turned = so.solve(C.T, reg=1.0, unbalanced=rho[::-1], method=cold)
    assert plain.converged
    assert turned.converged
    torch.testing.assert_close(plain.plan, turned.plan.T, atol=1e-8, rtol=0)
    assert float(plain.value) == pytest.approx(float(turned.value), abs=1e-4)
    assert float(plain.gap) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("rho", [(1, None), (None, 1)], ids=str)
def test_an_offset_of_a_dot_cost(rho):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(k, 3, generator=generator, dtype=torch.float64) for k in (6, 9))
    # a coordinate of their own is a constant
    x = torch.cat([x, torch.full((6, 1), 100.0)], 1)
    y = torch.cat([y, torch.full((9, 1), 100.0)], 1)
    C = so.PointCloud(x, y, "dot")
    dense = so.solve(-(x @ y.T), reg=1.0, unbalanced=rho)
    cloud = so.solve(C, reg=1.0, unbalanced=rho)
    assert cloud.converged
    torch.testing.assert_close(cloud.plan, dense.plan, atol=1e-8, rtol=0)
    known, value = truth(1e4 - x @ y.T, testing.uniform(6), testing.uniform(9), 1.0, rho)
    torch.testing.assert_close(cloud.plan, known, atol=1e-8, rtol=0)
    assert float(cloud.value) == pytest.approx(value - 1e4, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("offset", "rho"),
    [(-1e3, (0, 1e-3)), (-1e3, (1e-3, 0)), (-1e3, (0, 0)), (-1e5, (1, 1)), (-1e5, (1, 0.5))],
    ids=str,
)
def test_masses_out_of_range_are_no_success(offset, rho, dtype):
    C = torch.eye(2, dtype=dtype) + offset
    r = so.solve(C, reg=0.1, unbalanced=rho, on_fail="ignore")
    assert r.status is so.Status.NOT_FINITE
    assert r.marginal_error == INF
    assert "scale of the cost" in r.message


def test_the_range_is_that_of_the_result():
    """e^90 is a float64 and no float32."""
    C = torch.eye(2, dtype=torch.float64) - 9.0
    wide = so.solve(C, reg=0.1, unbalanced=0)
    narrow = so.solve(C.float(), reg=0.1, unbalanced=0, on_fail="ignore")
    assert wide.converged
    assert wide.value.isfinite()
    assert narrow.status is so.Status.NOT_FINITE


@pytest.mark.slow(1)
@pytest.mark.parametrize(
    "rho", [(0, 1), (1, 0), (1, 1), (100, 100), (1, 30), (0, 0), (1e-3, 1)], ids=str
)
@pytest.mark.parametrize("offset", [800.0, 1e4, 1e6])
def test_a_plan_below_all_numbers_is_empty(rho, offset):
    """Nothing is worth its cost: both sides are paid for, and the error is not 0 / 0."""
    C = torch.eye(2, dtype=torch.float64) + 100 * offset
    r = so.solve(C, reg=0.1, unbalanced=rho)
    assert r.converged
    assert (r.plan < 1e-100).all()
    assert float(r.value) == pytest.approx(sum(rho) + 0.1, abs=1e-9)
    assert float(r.gap) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_a_large_penalty_far_from_zero_costs_no_sweeps(offset):
    p = testing.random(13, 18, 0.1)
    r = so.solve(p.cost + offset, p.a, p.b, 0.1, unbalanced=30.0, tol=1e-8)
    assert r.converged
    assert int(r.n_iter) < 60


def test_no_error_is_good_by_being_nan():
    nothing = torch.full((1, 2), math.nan, dtype=torch.float64)
    for relax in ((1, 0), (1, 1), (1, None), (None, 1)):
        p = make(torch.ones(2, 2).double(), None, None, 0.1, relax)
        error = steps.column_error(p, torch.zeros_like(p.b), nothing)
        assert not (error <= 1e300).any()


def test_a_problem_that_stalls_is_not_sent_looking_for_a_plan():
    """Plans of relaxed problems exist, and what the precision allows nobody has measured."""
    assert "exact" in so.Status.STALLED.value
    assert "precision" not in so.Status.STALLED.value
