"""What must hold for every problem, tried on problems that Hypothesis draws."""

import math
import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.solvers.automatic import SWITCH


BOOLEANS = st.booleans()


@st.composite
def problems(draw, most=12, zeros=BOOLEANS, least_reg=3e-3):
    """A random problem of up to `most` points a side."""
    n, m = draw(st.integers(1, most)), draw(st.integers(1, most))
    reg = 10 ** draw(st.floats(math.log10(least_reg), 1))
    return testing.random(n, m, reg, zeros=draw(zeros), seed=draw(st.integers(0, 10**6)))


def solve(p: testing.Random, **options) -> so.Transport:
    return so.solve(p.cost, p.a, p.b, p.reg, **({"tol": 1e-12} | options))


def close(got, want, atol=1e-10):
    torch.testing.assert_close(got, want, atol=atol, rtol=0)


@given(problems())
def test_the_marginals_hold(p):
    r = solve(p, tol=1e-9)
    assert r.converged
    assert float((r.plan.sum(1) - p.a).abs().sum()) <= 2e-9
    assert float((r.plan.sum(0) - p.b).abs().sum()) <= 2e-9
    assert float(r.marginal_error) <= 1e-9
    assert (r.plan >= 0).all()


@given(problems())
def test_the_potentials_make_the_plan(p):
    r = solve(p)
    made = p.a[:, None] * p.b * ((r.f[:, None] + r.g - p.cost) / p.reg).exp()
    close(made, r.plan)


@given(problems())
def test_the_dual_reaches_the_primal(p):
    r = solve(p)
    assert float(r.gap) == pytest.approx(0, abs=1e-9)
    P, C, a, b = (t.numpy() for t in (r.plan, p.cost, p.a, p.b))
    dense = testing.objective(P, C, a, b, p.reg, (math.inf, math.inf))
    assert float(r.value) == pytest.approx(dense, abs=1e-10)
    assert float(r.value_linear) == pytest.approx((P * C).sum(), abs=1e-12)


@given(problems())
def test_transposition(p):
    close(solve(p).plan.T, so.solve(p.cost.T, p.b, p.a, p.reg, tol=1e-12).plan)


@given(problems(), st.floats(-100, 100))
def test_a_constant_in_the_cost_moves_nothing(p, constant):
    r, moved = solve(p), so.solve(p.cost + constant, p.a, p.b, p.reg, tol=1e-9)
    close(moved.plan, r.plan, 1e-8)
    close(moved.value, r.value + constant, 1e-8)


@given(problems())
def test_rows_and_columns_in_the_cost_move_nothing(p):
    rows, columns = torch.randn(p.a.shape[0], 1).double(), torch.randn(1, p.b.shape[0]).double()
    close(so.solve(p.cost + rows + columns, p.a, p.b, p.reg, tol=1e-12).plan, solve(p).plan)


@given(problems(), st.floats(-60, 60))
def test_cost_and_reg_scale_together(p, digits):
    scale = 10**digits
    r, scaled = solve(p), so.solve(p.cost * scale, p.a, p.b, p.reg * scale, tol=1e-12)
    close(scaled.plan, r.plan)
    close(scaled.f / scale, r.f - (r.f - scaled.f / scale).mean(), 1e-7)


@given(problems())
def test_order_does_not_matter(p):
    i, j = torch.randperm(len(p.a)), torch.randperm(len(p.b))
    moved = so.solve(p.cost[i][:, j], p.a[i], p.b[j], p.reg, tol=1e-12)
    close(moved.plan, solve(p).plan[i][:, j])


@given(problems(zeros=st.just(False)), st.integers(1, 4))
def test_points_without_mass_change_nothing(p, count):
    n, m = p.cost.shape
    C = torch.rand(n + count, m + count, dtype=torch.float64)
    C[:n, :m] = p.cost
    nothing = torch.zeros(count, dtype=torch.float64)
    r = so.solve(C, torch.cat([p.a, nothing]), torch.cat([p.b, nothing]), p.reg, tol=1e-12)
    close(r.plan[:n, :m], solve(p).plan)
    assert (r.plan[n:] == 0).all()
    assert (r.plan[:, m:] == 0).all()
    assert torch.isfinite(r.f).all()
    assert torch.isfinite(r.g).all()


@given(problems())
def test_a_point_may_be_split(p):
    """Two points at one place answer as one with their mass."""
    C, a = torch.cat([p.cost, p.cost[:1]]), torch.cat([p.a, p.a[:1] * 0.3])
    a[0] *= 0.7
    r = so.solve(C, a, p.b, p.reg, tol=1e-12)
    merged = r.plan[:-1].clone()
    merged[0] += r.plan[-1]
    close(merged, solve(p).plan)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_points_may_be_moved_together(n, m, seed):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.rand(n, 2, generator=g).double(), torch.rand(m, 2, generator=g).double()
    far = torch.tensor([1e4, -3e3], dtype=torch.float64)
    for metric in ("sqeuclidean", "euclidean"):
        here = so.solve(so.PointCloud(x, y, metric), reg=0.1, tol=1e-10)
        there = so.solve(so.PointCloud(x + far, y + far, metric), reg=0.1, tol=1e-10)
        close(there.plan, here.plan, 1e-9)


@given(problems())
def test_arrays_equal_tensors(p):
    C, a, b = (t.numpy() for t in (p.cost, p.a, p.b))
    r = so.solve(C, a, b, p.reg, tol=1e-12)
    assert isinstance(r.plan, torch.Tensor)
    close(r.plan, solve(p).plan, 0)
    # negative strides, read-only memory, the other byte order, lists
    b.flags.writeable = False
    flipped = so.solve(C[::-1, ::-1], a[::-1], b[::-1], p.reg, tol=1e-12)
    close(flipped.plan.flip(0, 1), r.plan)
    close(so.solve(C.astype(">f8"), a, b, np.float64(p.reg), tol=1e-12).plan, r.plan, 0)
    close(so.solve(C.tolist(), a.tolist(), b.tolist(), p.reg, tol=1e-12).plan, r.plan, 0)


@given(problems())
def test_strides_do_not_matter(p):
    wide = torch.full((len(p.a) * 2, len(p.b) * 3), math.nan, dtype=torch.float64)
    wide[::2, ::3] = p.cost
    strided = so.solve(wide[::2, ::3], p.a, p.b, p.reg, tol=1e-12)
    close(strided.plan, solve(p).plan)
    columns = p.cost.T.contiguous().T
    close(so.solve(columns, p.a, p.b, p.reg, tol=1e-12).plan, solve(p).plan)


@given(problems(), st.sampled_from(["auto", SWITCH, "sinkhorn", "newton"]))
def test_arguments_are_left_alone(p, method):
    given_ = p.cost.clone(), p.a.clone(), p.b.clone()
    r = solve(p, method=method)
    for asked in (r.certificate, r.round, r.check, lambda: r.gap, lambda: r.barycentric(p.b)):
        asked()
    so.solve(p.cost, p.a, p.b, p.reg, n_iter=2)
    for was, now in zip(given_, (p.cost, p.a, p.b), strict=True):
        assert torch.equal(was, now)


@given(problems(), st.sampled_from(["auto", SWITCH, "sinkhorn", "newton"]))
def test_a_warm_start_is_done_at_once(p, method):
    r = solve(p, tol=1e-9)
    again = solve(p, init=r, tol=1e-8, method=method)
    assert again.converged
    assert int(again.n_iter) <= 2
    close(again.plan, r.plan, 1e-6)
    by_potentials = solve(p, init=(r.f, r.g), tol=1e-8, method=method)
    assert int(by_potentials.n_iter) <= 2


@given(problems(), st.integers(2, 4))
def test_a_batch_equals_a_loop(p, count):
    weights = torch.stack([p.a.roll(k) for k in range(count)])
    together = so.solve(p.cost, weights, p.b, p.reg, tol=1e-12)
    for k in range(count):
        close(together.plan[k], so.solve(p.cost, weights[k], p.b, p.reg, tol=1e-12).plan, 1e-9)


@given(problems(), st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_no_nan_leaves_whatever_the_precision(p, dtype):
    C = (p.cost * 10).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", so.ConvergenceWarning)
        for r in (so.solve(C, p.a, p.b, p.reg), so.solve(C, p.a, p.b, p.reg, n_iter=2)):
            for t in (r.plan, r.f, r.g, r.value, r.value_linear, r.dual_value, r.marginal_error):
                assert torch.isfinite(t).all()


@given(problems(least_reg=0.02), st.floats(-1, 1), st.floats(-1, 1))
def test_relaxed_problems_meet_their_optimality(p, first, second):
    """P 1 = a exp(-f / rho) and P^T 1 = b exp(-g / rho)."""
    rho = 10**first, 10**second
    r = solve(p, unbalanced=rho)
    close(r.plan.sum(1), p.a * (-r.f / rho[0]).exp())
    close(r.plan.sum(0), p.b * (-r.g / rho[1]).exp())


@given(problems(), st.integers(1, 3))
def test_products_with_the_plan(p, k):
    r = solve(p)
    x, y = torch.randn(len(p.b), k).double(), torch.randn(len(p.a), k).double()
    close(r.apply(x), r.plan @ x)
    close(r.apply(x[:, 0]), r.plan @ x[:, 0])
    close(r.apply_transpose(y), r.plan.T @ y)
    live = p.a > 0
    mean = (r.plan @ x)[live] / r.plan.sum(1)[live, None]
    close(r.barycentric(x)[live], mean)
    assert torch.isfinite(r.barycentric(x)).all()


@given(problems())
def test_rounding_and_bounds(p):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", so.ConvergenceWarning)
        r = solve(p, max_iter=3)
    plan = r.round()
    close(plan.sum(1), p.a, 1e-14)
    close(plan.sum(0), p.b, 1e-14)
    assert (plan >= 0).all()
    bounds = r.certificate()
    assert float(bounds.lower) <= float(bounds.upper) + 1e-14
    assert float((plan * p.cost).sum()) == pytest.approx(float(bounds.upper), abs=1e-12)
    assert (bounds.f[:, None] + bounds.g <= p.cost).all()
