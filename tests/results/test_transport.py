"""What a result says of itself, against dense formulas."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import sinkhorn_ot as so
from sinkhorn_ot import testing


INF = math.inf


def solved(reg=0.1, *, zeros=False, **options):
    p = testing.random(12, 9, reg, zeros=zeros, seed=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", so.ConvergenceWarning)
        return p, so.solve(p.cost, p.a, p.b, reg, **options)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("max_iter", [1, 4, 1000])
@pytest.mark.parametrize("rho", [(INF, INF), (0.4, INF), (INF, 0.4), (0.3, 2.0), (0.0, 0.5)])
def test_values_are_their_formulas_wherever_the_solve_ended(rho, max_iter, zeros):
    """<P, C> + reg KL(P | a b^T) + penalties, and the dual objective at the potentials."""
    unbalanced = tuple(None if math.isinf(r) else r for r in rho)
    p, r = solved(unbalanced=unbalanced, max_iter=max_iter, zeros=zeros, method="sinkhorn")
    P, C, a, b = (t.numpy() for t in (r.plan, p.cost, p.a, p.b))
    primal = testing.objective(P, C, a, b, p.reg, rho)
    assert float(r.value) == pytest.approx(primal, abs=1e-12)
    assert float(r.value_linear) == pytest.approx(float((r.plan * p.cost).sum()), abs=1e-14)
    dual = p.reg * (float(p.a.sum() * p.b.sum()) - float(r.plan.sum()))
    for penalty, w, potential in zip(rho, (p.a, p.b), (r.f, r.g), strict=True):
        if math.isinf(penalty):
            dual += float(w @ potential)
        elif penalty > 0:
            dual -= penalty * float(w @ torch.expm1(-potential / penalty))
    assert float(r.dual_value) == pytest.approx(dual, abs=1e-12)
    assert float(r.gap) == pytest.approx(primal - dual, abs=1e-12)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("max_iter", [1, 3])
def test_the_dual_is_a_lower_bound(max_iter, zeros):
    p, r = solved(max_iter=max_iter, zeros=zeros, method="sinkhorn")
    truth = testing.judge(p.cost, p.a, p.b, p.reg)
    assert float(r.dual_value) <= truth.value + 1e-12


@pytest.mark.parametrize("max_iter", [1, 3, 1000])
@pytest.mark.parametrize("shape", [(12, 9), (3, 40)])
def test_the_marginal_error_is_that_of_the_plan(shape, max_iter):
    """Rows are exact where columns are iterated on; whichever is missed, it is told."""
    p = testing.random(*shape, 0.05)
    r = so.solve(p.cost, p.a, p.b, 0.05, max_iter=max_iter, on_fail="ignore", method="sinkhorn")
    true = (r.plan.sum(1) - p.a).abs().sum() + (r.plan.sum(0) - p.b).abs().sum()
    assert float(r.marginal_error) == pytest.approx(float(true), rel=1e-9, abs=1e-14)


def test_a_fixed_solve_is_never_said_to_have_converged():
    p, r = solved(n_iter=500)
    assert r.status is so.Status.FIXED
    assert not r.converged
    # but its error can be asked for
    true = (r.plan.sum(1) - p.a).abs().sum() + (r.plan.sum(0) - p.b).abs().sum()
    assert float(r.marginal_error) == pytest.approx(float(true), abs=1e-15)


@pytest.mark.parametrize("zeros", [False, True])
def test_products(zeros):
    p, r = solved(zeros=zeros)
    x, y = torch.randn(9, 4).double(), torch.randn(12, 4).double()
    torch.testing.assert_close(r.apply(x), r.plan @ x)
    torch.testing.assert_close(r.apply(x[:, 1]), r.plan @ x[:, 1])
    torch.testing.assert_close(r.apply_transpose(y), r.plan.T @ y)
    torch.testing.assert_close(r.apply_transpose(y[:, 1]), r.plan.T @ y[:, 1])
    torch.testing.assert_close(r.apply(x.numpy()), r.plan @ x)
    assert r.apply(x[:, :0]).shape == (12, 0)
    live = p.a > 0
    torch.testing.assert_close(r.barycentric(x)[live], (r.plan @ x / r.plan.sum(1)[:, None])[live])


def test_products_in_batches():
    drawn = [testing.random(6, 6, seed=k) for k in range(4)]
    a, b = torch.stack([p.a for p in drawn]), torch.stack([p.b for p in drawn])
    r = so.solve(drawn[0].cost, a.reshape(2, 2, 6), b.reshape(2, 2, 6), 0.1)
    many, shared, vectors = torch.rand(2, 2, 6, 3), torch.rand(6, 3), torch.rand(2, 2, 6)
    many, shared, vectors = many.double(), shared.double(), vectors.double()
    torch.testing.assert_close(r.apply(many), r.plan @ many)
    torch.testing.assert_close(r.apply(shared), r.plan @ shared)
    torch.testing.assert_close(r.apply(many[:, :1]), r.plan @ many[:, :1])
    torch.testing.assert_close(r.apply(vectors), (r.plan @ vectors[..., None])[..., 0])
    torch.testing.assert_close(r.apply(vectors[0, 0]), r.plan @ vectors[0, 0])


def test_a_point_without_mass_goes_where_its_neighbours_would():
    """The map of a source point does not need its mass."""
    p = testing.random(12, 9, 0.1)
    C = torch.cat([p.cost, p.cost[3:4]])
    r = so.solve(C, torch.cat([p.a, p.a.new_zeros(1)]), p.b, 0.1, tol=1e-12)
    y = torch.rand(9, 2).double()
    torch.testing.assert_close(r.barycentric(y)[-1], r.barycentric(y)[3])
    # and its potential is what it would be
    torch.testing.assert_close(r.f[-1], r.f[3])


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("reg", [1.0, 0.01])
def test_bounds_hold_the_optimum(reg, zeros):
    """SciPy's linear program lies between."""
    p, r = solved(reg, zeros=zeros, max_iter=20)
    n, m = p.cost.shape
    C, a, b = (t.numpy() for t in (p.cost, p.a, p.b))
    A = np.r_[np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))]
    best = linprog(C.reshape(-1), A_eq=A, b_eq=np.r_[a, b]).fun
    bounds = r.certificate()
    assert float(bounds.lower) <= best + 1e-12
    assert float(bounds.upper) >= best - 1e-12
    assert float(bounds.gap) == pytest.approx(float(bounds.upper - bounds.lower))
    assert (bounds.f[:, None] + bounds.g[None, :] <= p.cost).all()
    if reg == 0.01:
        assert float(bounds.gap) < 0.05


def test_everything_has_the_shape_of_the_batch():
    C = torch.rand(2, 3, 4, 5).double()
    r = so.solve(C, reg=0.3)
    for name in (
        "value",
        "value_linear",
        "dual_value",
        "gap",
        "marginal_error",
        "converged",
        "n_iter",
    ):
        assert getattr(r, name).shape == (2, 3), name
    assert r.plan.shape == r.round().shape == (2, 3, 4, 5)
    assert r.f.shape == r.certificate().f.shape == (2, 3, 4)
    assert r.g.shape == r.certificate().g.shape == (2, 3, 5)
    assert r.certificate().lower.shape == (2, 3)
    assert r.n_iter.dtype == torch.int64
    assert r.converged.dtype == torch.bool


def test_it_describes_itself():
    _, r = solved()
    assert "CONVERGED" in repr(r)
    assert "n=12, m=9" in repr(r)
    assert "The marginals match" in r.message
    assert repr(float(r.marginal_error))[:3] in r.message
    assert "plan" not in vars(r), "describing a result must not form its plan"


def test_which_method_ran_is_told():
    assert solved(method="newton")[1].method == "newton"
    assert solved(method=so.Sinkhorn(so.Plain()))[1].method == "plain"
    assert solved(method="auto")[1].method


def test_tensors_do_not_carry_graphs():
    _, r = solved()
    for t in (r.plan, r.f, r.g, r.value, r.apply(torch.rand(9).double())):
        assert not t.requires_grad


@pytest.mark.parametrize("status", list(so.Status))
def test_every_status_explains_itself(status):
    assert status.value[0].isupper()
    assert status.value.endswith(".")


class TestLogPlan:
    def test_it_goes_on_where_the_plan_underflows(self):
        C = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        r = so.solve(C, reg=1e-4)
        assert r.plan[0, 1] == 0
        # P_01 / P_00 = exp(-(C_01 - C_00) / reg), and log(1/2) on the diagonal
        want = torch.tensor([[0.0, -1e4], [-1e4, 0.0]], dtype=torch.float64) + math.log(0.5)
        torch.testing.assert_close(r.log_plan, want, rtol=1e-12, atol=1e-9)

    def test_it_is_the_logarithm_where_there_is_one(self):
        for cost, options in (
            (torch.rand(3, 20, 30, dtype=torch.float64), {}),
            (torch.rand(20, 30), {"unbalanced": 1.0}),
            (1e6 + torch.rand(20, 30, dtype=torch.float64), {}),
            (so.PointCloud(torch.rand(20, 3), torch.rand(300, 3)), {}),
        ):
            r = so.solve(cost, reg=0.1, **options)
            assert r.log_plan.dtype == r.plan.dtype
            torch.testing.assert_close(r.log_plan, r.plan.log(), rtol=1e-6, atol=1e-6)

    def test_only_what_is_forbidden_or_weightless_has_none(self):
        C = torch.rand(4, 5, dtype=torch.float64)
        C[1, 2] = math.inf
        a = torch.tensor([0.5, 0.25, 0.0, 0.25], dtype=torch.float64)
        none = C.isinf()
        none[2] = True
        log_plan = so.solve(C, a, reg=1e-4).log_plan
        assert torch.equal(log_plan == -math.inf, none)
        assert torch.isfinite(log_plan[~none]).all()

    def test_of_an_exact_plan(self):
        r = so.solve_exact(torch.rand(6, 7, dtype=torch.float64))
        assert torch.equal(r.log_plan, r.plan.log())
