"""Small problems beside penalties of any kind, solved whole: the plans of plain sweeps, in few."""

import math

import numpy as np
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.problem import make
from sinkhorn_ot.solvers import pose
from sinkhorn_ot.solvers.small import proximal, solve_small


KINDS = ("mass", "tv", "l2", "between", "kl", "mixed")


def drawn(kind, seed, n, m):
    """Return a cost, weights and a penalty, of all strengths."""
    rng = np.random.default_rng([KINDS.index(kind), seed])

    def strength(size):
        return torch.from_numpy(10 ** rng.uniform(-1.5, 0.5, size))

    a, b = (w / w.sum() for w in (rng.random(size) + 0.05 for size in (n, m)))
    if kind != "between":
        a *= rng.uniform(0.5, 2.0)
    asked = {
        "mass": {"mass": rng.uniform(0.05, 1.0) * min(a.sum(), 1.0)},
        "tv": {"unbalanced": (so.TV(strength(n)), so.TV(strength(m)))},
        "l2": {"unbalanced": so.L2(float(n * 10 ** rng.uniform(-2, 2)))},
        "between": {"unbalanced": (None, so.Between(0.6 * b, 1.3 * b))},
        "kl": {"unbalanced": (so.KL(strength(n)), so.KL(strength(m)))},
        "mixed": {"unbalanced": (0.5, so.Between(None, 0.8 * b))},
    }
    return rng.random((n, m)), a, b, asked[kind]


def served(cost, a, b, reg, tol=1e-9, max_iter=10_000, **asked):
    p = pose(make(cost, a, b, reg, **asked), None, None).problem
    found = solve_small(p, v=None, tol=tol, max_iter=max_iter)
    return None if found is None else found[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_plans_of_sweeps(kind):
    for seed in range(17):
        cost, a, b, asked = drawn(kind, seed, *(1 + (7 * seed) % 13, 1 + (5 * seed) % 11))
        reg = (0.3, 0.05, 0.02)[seed % 3]
        assert served(cost, a, b, reg, tol=1e-11, **asked) is not None
        one = so.solve(cost, a, b, reg, tol=1e-11, on_fail="raise", **asked)
        other = so.solve(cost, a, b, reg, tol=1e-11, on_fail="raise", method="sinkhorn", **asked)
        assert float((one.plan - other.plan).abs().sum()) < 1e-9 * float(other.plan.sum())
        assert abs(float(one.value - other.value)) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_sharp_plans_take_few_passes(kind):
    cost, a, b, asked = drawn(kind, 1, 60, 50)
    found = served(cost, a, b, 1e-3, **asked)
    assert found is not None
    assert int(found.n_iter) < 200


def test_a_stated_mass_of_even_points():
    """Whole numbers of points are full, whose prices only what leaks past them fixes."""
    cost = np.random.default_rng(1).random((60, 60))
    found = served(cost, None, None, 1e-3, mass=0.5)
    assert found is not None
    assert int(found.n_iter) < 300
    exact = so.solve_exact(cost, mass=0.5)
    r = so.solve(cost, reg=1e-3, mass=0.5, on_fail="raise")
    assert 0 <= float(r.value_linear - exact.value) < 1e-3 * math.log(3600)


def test_scales():
    cost, a, b, _ = drawn("tv", 3, 12, 9)
    one = so.solve(cost, a, b, 0.02, unbalanced=so.TV(0.2), on_fail="raise")
    for scale in (1e-150, 1e-9, 1e9, 1e150):
        tv = so.TV(0.2 * scale)
        much = so.solve(scale * cost, a, b, 0.02 * scale, unbalanced=tv, on_fail="raise")
        assert float((one.plan - much.plan).abs().sum()) < 1e-8
    # another mass is another problem, as the product of the weights has its square
    for scale in (1e-9, 1e-3, 1e3, 1e9):
        few, asked = (cost, scale * a, scale * b, 0.02), {"unbalanced": so.TV(0.2)}
        plan = so.solve(*few, on_fail="raise", **asked).plan
        other = so.solve(*few, on_fail="raise", method="sinkhorn", **asked).plan
        assert float((plan - other).abs().sum()) < 1e-7 * float(other.sum())


def test_what_is_left_to_others(monkeypatch):
    cost, a, b, asked = drawn("tv", 0, 8, 7)
    assert served(cost, a, b, 0.05, **asked) is not None
    none, barred = a.copy(), cost.copy()
    none[2], barred[1, 1] = 0.0, math.inf
    assert served(cost, none, b, 0.05, **asked) is None
    assert served(barred, a, b, 0.05, **asked) is None
    assert served(cost, a, b, 0.05, unbalanced=(0.0, so.TV(0.2))) is None
    assert served(cost, a, b, 0.05, max_iter=1, **asked) is None
    assert served(cost[None].repeat(2, 0), a, b, 0.05, **asked) is None
    # nothing is lost where steps do not arrive
    whole = so.solve(cost, a, b, 0.05, **asked)
    monkeypatch.setattr(proximal, "_PASSES", 1)
    assert served(cost, a, b, 0.05, **asked) is None
    swept = so.solve(cost, a, b, 0.05, on_fail="raise", **asked)
    assert swept.method == "anderson"
    assert float((whole.plan - swept.plan).abs().sum()) < 1e-7


def test_dropped_pairs_count_for_nothing():
    """A column so far that the kernel drops it has a price where its penalty fixes one."""
    cost = np.zeros((3, 3))
    cost[:, 2] = [5.0, 5.0, 6.0]
    r = so.solve(cost, reg=1e-3, on_fail="raise", unbalanced=so.TV(torch.ones(3)))
    assert float(r.plan[:, 2].sum()) == 0
    asked = {"reg": 1e-3, "on_fail": "raise", "unbalanced": (None, so.KL(torch.ones(3)))}
    soft, slow = (so.solve(cost, method=method, **asked) for method in ("auto", "sinkhorn"))
    assert torch.allclose(soft.g, slow.g, atol=1e-9)
