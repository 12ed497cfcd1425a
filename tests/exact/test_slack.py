"""A stated mass and prices on the marginals, solved exactly: beside HiGHS and POT."""

import math

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linprog

import sinkhorn_ot as so


DIGITS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def problem(k: int):
    """Return costs, some below zero, and weights, some of them zero."""
    rng = np.random.default_rng(k)
    n, m = rng.integers(1, 9, 2)
    C = rng.random((n, m)) - 0.3 * (k % 4 == 0)
    a, b = rng.random(n) * (rng.random(n) > 0.2 * (k % 3 == 0)), rng.random(m)
    a[0] += a.sum() == 0
    return rng, C, a, b


def marginals(n: int, m: int):
    return np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])


def least_of_mass(C, a, b, mass) -> float:
    found = linprog(
        C.ravel(),
        A_ub=marginals(*C.shape),
        b_ub=np.r_[a, b],
        A_eq=np.ones((1, C.size)),
        b_eq=[mass],
        method="highs-ds",
        options=DIGITS,
    )
    return found.fun


def least_at_prices(C, a, b, rho_a, rho_b) -> float:
    """Solve with a unit too few and one too many as variables of their own.

    Points without weight take part in nothing, as in KL(P | a b^T).
    """
    N = sum(C.shape)
    pairs = np.where((a > 0)[:, None] & (b > 0) & (np.inf > C), np.inf, 0.0).ravel()
    C = np.where(np.inf > C, C, 0.0)
    rho = np.r_[rho_a, rho_b]
    most = np.r_[np.full(C.size, np.inf), np.tile(np.where(rho < np.inf, np.inf, 0.0), 2)]
    prices = np.where(rho < np.inf, rho, 0.0)
    found = linprog(
        np.r_[C.ravel(), prices, prices],
        A_eq=np.hstack([marginals(*C.shape), np.eye(N), -np.eye(N)]),
        b_eq=np.r_[a, b],
        bounds=np.c_[np.zeros_like(most), np.r_[pairs, most[C.size :]]],
        method="highs-ds",
        options=DIGITS,
    )
    return found.fun


def test_a_stated_mass_is_the_linear_program_of_highs_and_pot() -> None:
    for k in range(100):
        rng, C, a, b = problem(k)
        mass = min(a.sum(), b.sum()) * (1 if k % 3 == 0 else rng.random())
        r = so.solve_exact(C, a, b, mass=mass)
        P = r.plan.numpy()
        assert r.status is so.Status.OPTIMAL
        assert float(r.value) == pytest.approx(least_of_mass(C, a, b, mass), abs=1e-12)
        assert abs(float(r.gap)) <= 1e-13
        assert abs(P.sum() - mass) <= 1e-14
        assert (P.sum(1) <= a + 1e-15).all()
        assert (P.sum(0) <= b + 1e-15).all()
        assert (r.f.numpy()[:, None] + r.g.numpy() <= C).all()
        if k % 4 and k % 3:
            theirs = (ot.partial.partial_wasserstein(a, b, C, m=mass) * C).sum()
            assert float(r.value) == pytest.approx(theirs, abs=1e-12)


def test_prices_are_the_linear_program_of_highs() -> None:
    for k in range(100):
        rng, C, a, b = problem(k)
        rho_a = rng.random(len(a)) * (0.6 if k % 2 else 0.2) + 0.15 + 0.3 * (k % 4 == 0)
        rho_b = rng.random(len(b)) * 0.6 + 0.15
        if k % 7 == 0:
            rho_a[:] = np.inf
        elif k % 11 == 0:
            rho_b[0] = 0
        penalty = so.TV(torch.from_numpy(rho_a)), so.TV(torch.from_numpy(rho_b))
        r = so.solve_exact(C, a, b, unbalanced=penalty)
        assert r.status is so.Status.OPTIMAL
        best = least_at_prices(C, a, b, rho_a, rho_b)
        assert float(r.value) == pytest.approx(best, abs=1e-12)
        assert abs(float(r.gap)) <= 1e-13
        f, g = r.f.numpy(), r.g.numpy()
        assert (f[:, None] + g <= C).all()
        assert (f <= rho_a + 1e-15).all()
        assert (g <= rho_b + 1e-15).all()
        assert (f >= -rho_a - 1e-15)[a > 0].all()
        assert (g >= -rho_b - 1e-15)[b > 0].all()


def test_points_without_weight_take_nothing_at_any_price() -> None:
    rng = np.random.default_rng(0)
    for k in range(150):
        n, m = rng.integers(1, 4, 2)
        C = np.where(rng.random((n, m)) < 0.4 * (k % 3 > 0), np.inf, rng.random((n, m)))
        C[0, 0] = 0.5
        a, b = rng.integers(0, 3, n) / 2, rng.integers(0, 3, m) / 2
        a[rng.integers(n)] = b[rng.integers(m)] = 1
        rho_a, rho_b = 3 * rng.random(n), 0.3 * rng.random(m)
        penalty = so.TV(torch.from_numpy(rho_a)), so.TV(torch.from_numpy(rho_b))
        r = so.solve_exact(C, a, b, unbalanced=penalty)
        best = least_at_prices(C, a, b, rho_a, rho_b)
        assert r.status is so.Status.OPTIMAL, k
        assert float(r.value) == pytest.approx(best, abs=1e-12), k
        assert float(r.dual_value) == pytest.approx(best, abs=1e-12), k
        assert not r.plan[a == 0].any(), k
        assert not r.plan[:, b == 0].any(), k
        f, g = r.f.numpy(), r.g.numpy()
        assert (f[:, None] + g <= C).all(), k
        assert (f >= -rho_a - 1e-15)[a > 0].all(), k
        assert (g >= -rho_b - 1e-15)[b > 0].all(), k
        if k % 15 == 0:
            soft = so.solve(C, a, b, 1e-2, unbalanced=penalty, tol=1e-3)
            assert float(soft.value) == pytest.approx(best, abs=5e-2), k


@pytest.mark.parametrize("far", [math.inf, 100.0])
def test_a_pair_of_a_point_without_weight_may_as_well_be_forbidden(far) -> None:
    C = [[0.5, far], [far, 0.5]]
    how = {"a": [1.0, 1.0], "b": [0.0, 1.0], "unbalanced": (so.TV(2.0), so.TV(0.1))}
    r = so.solve_exact(C, **how)
    assert r.status is so.Status.OPTIMAL
    assert float(r.value) == pytest.approx(2.5, abs=1e-14)
    assert float(so.solve(C, reg=1e-3, **how).value) == pytest.approx(2.5, abs=1e-2)


def test_nothing_is_moved_where_nobody_has_a_partner_with_weight() -> None:
    inf = math.inf
    r = so.solve_exact([[inf, 1.0]], [1.0], [1.0, 0.0], unbalanced=so.TV(1.0))
    assert r.status is so.Status.OPTIMAL
    assert not r.plan.any()
    assert float(r.value) == float(r.dual_value) == 2.0
    C = [[[inf, inf]], [[1.0, 2.0]]]
    batch = so.solve_exact(C, [1.0], [0.5, 0.5], unbalanced=so.TV(0.3))
    assert batch.statuses == [so.Status.OPTIMAL] * 2
    assert not batch.plan.any()
    soft = so.solve(C, [1.0], [0.5, 0.5], 1e-3, unbalanced=so.TV(0.3))
    torch.testing.assert_close(batch.value.to(soft.value), soft.value, rtol=0, atol=1e-2)


def test_the_value_is_the_limit_of_the_entropic_one() -> None:
    _, C, a, b = problem(5)
    mass = 0.5 * min(a.sum(), b.sum())
    for how in ({"mass": mass}, {"unbalanced": so.TV(0.2)}):
        exact, soft = so.solve_exact(C, a, b, **how), so.solve(C, a, b, 1e-3, **how)
        assert float(soft.value) == pytest.approx(float(exact.value), abs=2e-2)


def test_one_side_exact_or_free_is_a_price_too() -> None:
    rng, C, a, b = problem(13)
    inf, zero = np.full(len(a), np.inf), np.zeros(len(b))
    one = so.solve_exact(C, a, b, unbalanced=(None, so.TV(0.3)))
    best = least_at_prices(C, a, b, inf, np.full(len(b), 0.3))
    assert float(one.value) == pytest.approx(best, abs=1e-13)
    torch.testing.assert_close(one.plan.sum(1), torch.from_numpy(a))
    free = so.solve_exact(C, a, b, unbalanced=(None, 0))
    assert float(free.value) == pytest.approx(float(C.min(1) @ a), abs=1e-13)
    assert float(free.value) == pytest.approx(least_at_prices(C, a, b, inf, zero), abs=1e-13)


def test_batches_have_a_mass_each_and_share_costs_or_not() -> None:
    rng = np.random.default_rng(0)
    C, a, b = rng.random((2, 1, 4, 5)), rng.random((3, 4)), rng.random(5)
    mass = torch.tensor([0.1, 0.4, 0.9])
    for how in ({"mass": mass}, {"unbalanced": so.TV(0.3)}):
        r = so.solve_exact(C, a, b, **how)
        assert r.value.shape == (2, 3)
        for k in np.ndindex(2, 3):
            alone = how if "mass" not in how else {"mass": float(mass[k[1]])}
            one = so.solve_exact(C[k[0], 0], a[k[1]], b, **alone)
            torch.testing.assert_close(r.value[k], one.value)
    shared = so.solve_exact(C[0, 0], a, b, mass=mass)
    assert float((shared.plan.sum((-2, -1)) - mass).abs().max()) < 1e-7


def test_forbidden_pairs_and_points_without_a_partner() -> None:
    C = np.array([[0.0, np.inf], [np.inf, np.inf]])
    r = so.solve_exact(C, [0.5, 0.5], [0.5, 0.5], unbalanced=so.TV(1.0))
    # half a unit stays on each side
    assert float(r.value) == pytest.approx(1.0)
    assert r.plan.tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert float(so.solve_exact(C, [0.5, 0.5], [0.5, 0.5], mass=0.5).value) == 0
    C = np.array([[1.0, np.inf, 2.0], [np.inf, 3.0, np.inf]])
    r = so.solve_exact(C, [1.0, 1.0], [0.5, 1.0, 1.0], mass=1.2)
    assert float(r.value) == pytest.approx(0.5 + 2 * 0.5 + 3 * 0.2)
    with pytest.raises(ValueError, match="mass must be|no plan exists"):
        so.solve_exact(C, [1.0, 1.0], [0.5, 1.0, 0.1], mass=1.9)


def test_a_match_of_rows_instead_of_a_spread() -> None:
    C = np.array([[1.0, 5.0], [2.0, 1.0], [0.0, 4.0]])
    matched = so.solve_exact(C, np.ones(3), np.ones(2), mass=2)
    assert matched.plan.tolist() == [[0, 0], [0, 1], [1, 0]]
    assert (so.solve_exact(C).plan.sum(1) - 1 / 3).abs().max() < 1e-15


@pytest.mark.parametrize("how", [{"mass": 0.7}, {"unbalanced": so.TV(0.35)}])
def test_derivatives(how) -> None:
    random = torch.Generator().manual_seed(0)
    C, a, b = (
        torch.rand(s, dtype=torch.float64, generator=random, requires_grad=True)
        for s in ((4, 5), 4, 5)
    )
    assert torch.autograd.gradcheck(lambda C, a, b: so.solve_exact(C, a, b, **how).value, (C, a, b))


def test_more_weight_at_a_point_without_a_partner_is_worth_its_price() -> None:
    a = torch.tensor([1.0, 1.0]).double().requires_grad_()
    C = torch.tensor([[0.5, math.inf], [math.inf, 0.5]]).double()
    how = so.TV(torch.tensor([2.0, 0.7]).double()), so.TV(0.1)
    value = so.solve_exact(C, a, torch.tensor([0.0, 1.0]).double(), unbalanced=how).value
    value.backward()
    assert value.item() == pytest.approx(2.5)
    assert float(a.grad[0]) == 2.0


def test_what_allowed_pairs_cannot_move_is_told_of_the_points_given() -> None:
    inf = math.inf
    C = [[0.0, inf], [inf, 0.0]]
    said = (
        r"mass must be at most what allowed pairs can move, 3, got 3\.5: rows \[1\] hold 3, but "
        r"the columns they may use, \[1\], take only 2$"
    )
    with pytest.raises(ValueError, match=said):
        so.solve_exact(C, [1.0, 3.0], [2.0, 2.0], mass=3.5)
    assert float(so.solve_exact(C, [1.0, 3.0], [2.0, 2.0], mass=3.0).plan.sum()) == 3
    with pytest.raises(ValueError, match=r"can move in problem 1, 3, got 3\.5"):
        so.solve_exact([C, [[0.0, 0], [0, 0]]][::-1], [1.0, 3.0], [2.0, 2.0], mass=3.5)
    # exact points of both sides that only serve each other
    exact = so.TV(torch.tensor([1.0, inf]))
    with pytest.raises(ValueError, match=r"a plan: rows \[1\] hold 3,.*, \[1\], take only 1"):
        so.solve_exact(C, [1.0, 3.0], [2.0, 1.0], unbalanced=exact)
    with pytest.raises(ValueError, match=r"columns \[1\] hold 3,.* rows .*, \[1\], take only 1"):
        so.solve_exact(C, [2.0, 1.0], [1.0, 3.0], unbalanced=exact)


BAD = [
    ({"mass": 3.0}, "mass must be at most what a has"),
    ({"mass": 0.0}, "mass must be finite and above zero"),
    ({"mass": -1.0}, "mass must be finite and above zero, got -1$"),
    ({"mass": math.nan}, "mass must"),
    ({"mass": 0.5, "unbalanced": so.TV(1.0)}, "mass must not be given with unbalanced"),
    ({"mass": 0.5, "engine": "assignment"}, "'assignment' must move all weights"),
    ({"unbalanced": 1.0}, r"got a KL penalty of 1 for a: use solve"),
    ({"unbalanced": so.L2(1.0)}, "got L2 for a: use solve"),
    ({"unbalanced": (so.TV(1.0), so.KL(torch.tensor([1.0, 1.0])))}, "got KL for b: use solve"),
    ({"unbalanced": so.TV(0.1), "cost": -np.ones((2, 2))}, "there is no least value"),
    ({"unbalanced": so.TV(-1.0)}, "rho of TV must be at least zero"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_bad_input_is_told(given, message) -> None:
    held = {"cost": np.ones((2, 2)), "a": [1.0, 1.0], "b": [1.0, 1.0]} | given
    with pytest.raises(ValueError, match=message):
        so.solve_exact(held.pop("cost"), held.pop("a"), held.pop("b"), **held)
