"""Small problems, which are solved whole in NumPy: the same answers, and nothing lost."""

import itertools
import math

import numpy as np
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.problem import make
from sinkhorn_ot.solvers.small import solve_small
from sinkhorn_ot.solvers.small import whole as module


LIMITS = {"v": None, "tol": 1e-10, "max_iter": 10_000}


def served(cost, a, b, reg, **changes):
    found = solve_small(make(cost, a, b, reg), **(LIMITS | changes))
    return None if found is None else found[0]


def plan_of(s, cost, reg, k=0):
    shift = make(cost, reg=reg).shift
    return torch.exp(s.u[k, :, None] + s.v[k] - (cost - shift) / reg)


@pytest.mark.parametrize("reg", [1.0, 0.1, 0.01, 1e-3, 1e-4])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (2, 2), (30, 20), (90, 100), (400, 3)])
def test_the_answer_is_that_of_a_judge(n, m, reg):
    p = testing.random(n, m, reg)
    s = served(p.cost, p.a, p.b, reg)
    assert s is not None
    assert s.status == [so.Status.CONVERGED]
    P = plan_of(s, p.cost, reg)
    off = (P.sum(1) - p.a).abs().sum() + (P.sum(0) - p.b).abs().sum()
    assert abs(float(off) - float(s.error)) < 1e-11
    assert float(off) < 1.2e-10
    # the plan is the only one of its form with these marginals
    slow = so.solve(p.cost, p.a, p.b, reg, method="newton", tol=1e-12, on_fail="ignore")
    assert float((P - slow.plan).abs().sum()) < 1e-7


def test_parts_that_almost_nothing_joins():
    """Where a plan falls apart, rounding decides what a Hessian says of the rest."""
    found = []
    for seed in range(60):
        x, y = torch.rand(2, 16, 2, generator=torch.Generator().manual_seed(seed)).double()
        p = testing.random(16, 16, seed=seed)
        C = torch.cdist(x, y).square()
        found.append(served(C / C.max(), p.a, p.b, 1e-4, tol=1e-8))
    assert sum(s is None for s in found) <= 1


def test_masses_may_be_of_any_size():
    p = testing.random(20, 30)
    for mass in (1e-200, 1e-30, 1e30, 1e100):
        s = served(p.cost, mass * p.a, mass * p.b, 0.02)
        assert s is not None
        torch.testing.assert_close(
            plan_of(s, p.cost, 0.02) / mass,
            plan_of(served(p.cost, p.a, p.b, 0.02), p.cost, 0.02),
            rtol=1e-8, atol=0,
        )  # fmt: skip


def test_a_weight_range_of_many_orders():
    p = testing.random(25, 25)
    a = p.a * torch.logspace(-250, 0, 25, dtype=torch.float64)
    b = p.b * torch.logspace(0, -250, 25, dtype=torch.float64)
    r = so.solve(p.cost, a / a.sum(), b / b.sum(), 0.01, tol=1e-9)
    assert r.converged
    assert torch.isfinite(r.f).all()
    assert torch.isfinite(r.g).all()


def test_forbidden_pairs():
    p = testing.random(12, 12)
    C = p.cost.clone()
    C[torch.rand(12, 12, generator=torch.Generator().manual_seed(0)) < 0.3] = math.inf
    C.fill_diagonal_(0.2)
    w = testing.uniform(12)
    r = so.solve(C, w, w, 0.01, tol=1e-10)
    assert r.converged
    assert float(r.plan[C.isinf()].abs().sum()) == 0
    assert float((r.plan.sum(1) - w).abs().sum() + (r.plan.sum(0) - w).abs().sum()) < 2e-10


def test_no_plan_is_told():
    """Two rows that share their only column ask more of it than it has."""
    C = torch.tensor([[0.0, math.inf], [0.0, math.inf], [1.0, 0.0]], dtype=torch.float64)
    with pytest.warns(so.ConvergenceWarning):
        r = so.solve(C, reg=0.1, max_iter=500)
    assert not r.converged


@pytest.mark.parametrize("bad", [{"max_iter": 3}, {"tol": 1e-18}])
def test_what_does_not_arrive_is_left_to_others(bad):
    p = testing.random(30, 30)
    assert served(p.cost, p.a, p.b, 1e-3, **bad) is None


def test_what_is_not_small_is_left_to_others():
    p = testing.random(30, 30)
    assert solve_small(make(torch.rand(600, 600).double(), reg=0.005), **LIMITS) is None
    for rho in ((1.0, 0), (0, 1.0), (1e5, 1.0)):
        assert solve_small(make(p.cost, p.a, p.b, 0.1, unbalanced=rho), **LIMITS) is None


@pytest.mark.slow(1)
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("offset", [0.0, 3.0, -2.0])
@pytest.mark.parametrize(
    "rho", [(1, 1), (0.01, 0.01), (10, 10), (0.1, 10), (None, 1), (1, None), (30, None)], ids=str
)
def test_relaxed_marginals(rho, offset, zeros):
    """The same formulas with elasticities: by plain steps, by Newton's and through the stages."""
    limit = tuple(math.inf if r is None else r for r in rho)
    for (n, m), reg in itertools.product([(5, 7), (30, 20), (3, 60)], [1, 0.1, 0.01, 2e-3]):
        p = testing.random(n, m, reg, zeros=zeros)
        # beside penalties masses may differ
        a = p.a if limit == (math.inf, math.inf) else 1.3 * p.a
        truth = testing.judge(p.cost + offset, a, p.b, reg, limit)
        r = so.solve(p.cost + offset, a, p.b, reg, unbalanced=rho, tol=1e-11)
        assert r.method in ("plain", "newton") or limit == (0.01, 0.01)
        assert float((r.plan - truth.plan).abs().sum()) < 1e-8 * float(truth.plan.sum())
        assert float(r.value) == pytest.approx(truth.value, rel=1e-9, abs=1e-12)
        assert float(r.gap) == pytest.approx(0, abs=1e-9 * max(1, abs(truth.value)))


@pytest.mark.parametrize("far", [1e5, 1e8])
def test_relaxed_plans_out_of_range_are_left_to_others(far):
    """Masses below all numbers: no division by zero, no digit lost in silence."""
    p = testing.random(6, 8)
    with np.errstate(all="raise"):
        r = so.solve(p.cost + far, p.a, p.b, 0.1, unbalanced=1.0, tol=1e-8)
    assert r.converged
    assert float(r.plan.sum()) == 0


def test_limits_are_kept():
    p = testing.random(40, 40)
    r = so.solve(p.cost, p.a, p.b, 1e-3, max_iter=7, on_fail="ignore")
    assert r.status is so.Status.MAX_ITER
    assert int(r.n_iter) <= 7
    assert so.solve(p.cost, p.a, p.b, 1e-3).status is so.Status.CONVERGED


def test_a_warm_start_is_taken():
    p = testing.random(40, 40)
    cold = so.solve(p.cost, p.a, p.b, 1e-2, tol=1e-8)
    for init in (cold, (None, cold.g), (cold.f, None)):
        assert int(so.solve(p.cost, p.a, p.b, 1e-2, tol=1e-7, init=init).n_iter) <= 2 < cold.n_iter
    far = (None, 1e3 * torch.randn(40, dtype=torch.float64))
    assert so.solve(p.cost, p.a, p.b, 1e-2, tol=1e-8, init=far).converged


@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_one_by_one(shared):
    """Each problem of a batch has the answer that it has alone, in its own place."""
    drawn = [testing.random(50, 50, seed=k) for k in range(5)]
    C, a, b = (torch.stack([getattr(p, name) for p in drawn]) for name in ("cost", "a", "b"))
    C = C[0] if shared else C
    reg = torch.tensor([1e-3, 2e-3, 1e-3, 5e-4, 1e-3], dtype=torch.float64)
    r = so.solve(C, a, b, reg, tol=1e-9)
    assert r.converged.all()
    for k in range(5):
        alone = so.solve(C if shared else C[k], a[k], b[k], float(reg[k]), tol=1e-9)
        assert float((r.plan[k] - alone.plan).abs().sum()) < 1e-7


def test_of_a_batch_those_that_fail_are_solved_by_others(monkeypatch):
    """What is served here and what is not come back in the caller's order."""
    drawn = [testing.random(50, 45, seed=k) for k in range(4)]
    C, a, b = (torch.stack([getattr(p, name) for p in drawn]) for name in ("cost", "a", "b"))
    alone, served = module._annealed, []
    third = make(C[2], a[2], b[2], 1e-3).a

    def seen(p, *rest):
        served.append(not torch.equal(p.a, third))
        return alone(p, *rest) if served[-1] else None

    monkeypatch.setattr("sinkhorn_ot.solvers.small.whole._annealed", seen)
    r = so.solve(C, a, b, 1e-3, tol=1e-8)
    assert served == [True, True, False, True]
    assert r.converged.all()
    off = (r.plan.sum(2) - a).abs().sum(1) + (r.plan.sum(1) - b).abs().sum(1)
    assert float(off.max()) < 2e-8


def test_the_method_is_told():
    p = testing.random(30, 30)
    assert so.solve(p.cost, p.a, p.b, 1e-3).method == "newton"
    assert so.solve(p.cost, p.a, p.b, 1.0).method == "plain"
    # who is told of every sweep has them made one by one
    watched = so.solve(p.cost, p.a, p.b, 1e-3, callback=lambda progress: None)
    assert watched.method == "newton"
    assert so.solve(p.cost, p.a, p.b, 1e-3, max_iter=5, on_fail="ignore").method == "newton"


def test_single_precision_is_solved_in_double():
    p = testing.random(30, 30)
    r = so.solve(p.cost.float(), p.a.float(), p.b.float(), 1e-3, tol=1e-6)
    assert r.converged
    assert r.plan.dtype == torch.float32
    true = so.solve(p.cost.float().double(), p.a.float(), p.b.float(), 1e-3, tol=1e-9)
    assert float((r.plan - true.plan).abs().sum()) < 1e-5


def test_points_without_weight_in_a_batch():
    drawn = [testing.random(50, 60, seed=k, zeros=k > 0) for k in range(4)]
    C, a, b = (torch.stack([getattr(p, name) for p in drawn]) for name in ("cost", "a", "b"))
    r = so.solve(C, a, b, 1e-3, tol=1e-9)
    assert r.converged.all()
    assert (r.plan.sum(2)[a == 0] == 0).all()
    assert torch.isfinite(r.f).all()
    assert torch.isfinite(r.g).all()


def test_a_light_column_keeps_a_finite_potential():
    """Its mass is below tol, so that nothing stops its scaling from underflowing."""
    C = torch.tensor([[1.0, 2.0], [1.0, 0.0]], dtype=torch.float64)
    a, b = (torch.tensor([1.0, w], dtype=torch.float64) for w in (7e-10, 1.2e-10))
    r = so.solve(C, a / a.sum(), b / b.sum(), 5e-4)
    assert torch.isfinite(r.coupling.v).all()
    w = a[:, None] * b / a.sum() / b.sum()
    formed = torch.exp((r.f[:, None] + r.g - C) / 5e-4) * w
    torch.testing.assert_close(formed, r.plan, rtol=1e-6, atol=1e-300)


@pytest.mark.parametrize(
    "options", [{}, {"progress": True}, {"callback": lambda told: None}, {"method": "newton"}]
)
@pytest.mark.parametrize("batch", [1, 4])
def test_nearly_parted_plans_whoever_solves_them(options, batch):
    """What joins the two parts is a rounding error of the Hessian."""
    C = torch.tensor([[0.0, 2.0], [2.0, 0.0]], dtype=torch.float64).expand(batch, 2, 2)
    a = torch.tensor([0.6, 0.4], dtype=torch.float64)
    b = torch.tensor([0.597, 0.403], dtype=torch.float64)
    r = so.solve(C, a, b, 0.005, **options)
    assert r.converged.all()
    assert int(r.n_iter.max()) < 100


def test_progress_does_not_change_the_answer(capsys):
    p = testing.random(40, 40)
    quiet, told = (so.solve(p.cost, p.a, p.b, 1e-3, progress=shown) for shown in (False, True))
    assert torch.equal(quiet.plan, told.plan)
    assert "sweep=" in capsys.readouterr().err


@pytest.mark.parametrize("n", [5, 20])
def test_a_constant_in_a_start_means_nothing(n):
    p = testing.random(n, 25 - n)
    first = so.solve(p.cost, p.a, p.b, 1e-3)
    for cost, init in (
        (p.cost + 1e6, first),
        (p.cost, (None, first.g + 1e6)),
        (p.cost, (first.f - 1e6, None)),
    ):
        again = so.solve(cost, p.a, p.b, 1e-3, init=init, tol=1e-8)
        assert again.converged
        # the constant has taken seven digits before it is taken off
        assert int(again.n_iter) <= 10 < first.n_iter


@pytest.mark.parametrize("rho", [1e2, 1e3, 1e4])
def test_stiff_penalties_prove_themselves(rho):
    """Too stiff for the judge: nearly exact marginals, a gap of nothing, and few passes."""
    p = testing.random(30, 40)
    r = so.solve(p.cost, 1.3 * p.a, p.b, 0.1, unbalanced=rho)
    assert r.converged
    assert int(r.n_iter) < 100
    assert float(r.gap) == pytest.approx(0, abs=1e-9 * rho)
    # between 1.3 and 1 the penalties choose the mean
    assert float(r.plan.sum()) == pytest.approx(math.sqrt(1.3), rel=2 / rho)


def _clouds(n, m, seed=0):
    x, y = (torch.rand(k, 2, generator=torch.Generator().manual_seed(seed + k)) for k in (n, m))
    C = torch.cdist(x.double(), y.double()).square()
    a, b = (1 + torch.rand(k, generator=torch.Generator().manual_seed(k)).double() for k in (n, m))
    return C / C.max(), a / a.sum(), b / b.sum()


@pytest.mark.parametrize(("n", "m"), [(700, 811), (1025, 601)])
@pytest.mark.parametrize("reg", [1.0, 0.1, 0.06])
@pytest.mark.parametrize("turned", [False, True])
def test_many_easy_pairs_are_solved_whole_in_the_precision_of_the_cost(n, m, reg, turned):
    C, a, b = _clouds(n, m)
    P = so.solve(C, a, b, reg, tol=1e-12, method="sinkhorn").plan
    for dtype, tol, digits in ((torch.float64, 1e-10, 2e-12), (torch.float32, 1e-6, 2e-7)):
        given = C.to(dtype)
        # stored column by column
        given = given.T.contiguous().T if turned else given
        s = served(given, a, b, reg, tol=tol)
        assert s is not None
        assert s.scaled.K.dtype == s.scaled.plan().numpy().dtype == given.numpy().dtype
        plan = s.scaled.plan()[0].double()
        off = float((plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum())
        assert off <= tol + digits
        # an error is magnified less than that, and so is the rounding of costs
        assert float((plan - P).abs().sum()) <= 5 * (tol + digits)
        torch.testing.assert_close(plan, plan_of(s, C, reg), rtol=1e-5, atol=1e-300)


def test_double_stays_where_single_precision_would_show():
    C, a, b = _clouds(700, 700)
    heavy = (w.clone().index_fill_(0, torch.tensor([3]), 0.2) for w in (a, b))
    first, second = (w / w.sum() for w in heavy)
    cases = ((first, second, 0.1, 1e-6), (a, b, 0.1, 1e-8), (first, b, 0.1, 1e-6))
    kinds = [served(C.float(), *case[:3], tol=case[3]).scaled.K.dtype for case in cases]
    assert kinds == [np.float64, np.float64, np.float32]
    # a weight that single precision does not hold
    tiny = a.clone().index_fill_(0, torch.tensor([3]), 1e-40)
    s = served(C.float(), tiny, b * (tiny.sum() / b.sum()), 0.1, tol=1e-6)
    assert s is None or s.scaled.K.dtype == np.float64


@pytest.mark.parametrize("mass", [1e-250, 1.0, 1e100])
@pytest.mark.parametrize("reg", [10.0, 0.1, 0.005])
@pytest.mark.parametrize("relax", [None, 0.01, (None, 1e-3)])
def test_a_kernel_held_whole_bounds_its_potentials(mass, reg, relax):
    """So that nobody has to look at them; see `judged`."""
    p = testing.random(20, 30)
    for shift in (0.0, 5.0, -5.0):
        posed = make(p.cost + shift, mass * p.a, mass * p.b, reg, relax)
        found = solve_small(posed, **LIMITS)
        if found is None or found[0].scaled is None:
            continue
        largest = max(float(t.abs().max()) for t in (found[0].u, found[0].v))
        assert largest <= 2500 + 2 * posed.resolution / torch.finfo(torch.float64).eps


def test_what_plain_steps_began_others_go_on_from():
    C, a, b = _clouds(700, 690)
    assert solve_small(make(C.float(), a, b, 0.01), **LIMITS) is None
    begun = solve_small(make(C, a, b, 0.01), **LIMITS)
    assert begun is not None
    start = begun[0]
    assert start.status == [so.Status.MAX_ITER]
    assert start.scaled is None
    made = int(start.n_iter)
    r = so.solve(C, a, b, 0.01)
    cold = so.solve(C, a, b, 0.01, method="sinkhorn")
    assert r.converged
    assert made < int(r.n_iter) <= 2 * int(cold.n_iter)
    assert float((r.plan - cold.plan).abs().sum()) <= 1e-8
    # of the sweeps that are allowed those are some
    for most in (1, 3, made, made + 1, made + 5):
        few = so.solve(C, a, b, 0.01, max_iter=most, on_fail="ignore")
        assert few.status is so.Status.MAX_ITER
        assert int(few.n_iter) == most
