"""Known answers, and POT and a dense fixed point as judges."""

import math

import numpy as np
import ot
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.solvers.automatic import SWITCH


METHODS = ["auto", SWITCH, "sinkhorn", "newton"]


def close(r: so.Transport, known: testing.Known, atol: float) -> None:
    torch.testing.assert_close(r.plan, known.plan, atol=atol, rtol=0)
    assert float(r.value) == pytest.approx(known.value, abs=10 * atol)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "known",
    [testing.permutation(), testing.two_points(), testing.two_points(5.0, 0.01)],
    ids=["permutation", "two points", "two far points"],
)
def test_known_plans(known, method):
    r = so.solve(known.cost, known.a, known.b, known.reg, method=method, tol=1e-12)
    close(r, known, 1e-11)
    assert r.converged


def test_gaussians_in_one_dimension():
    known = testing.gaussians()
    r = so.solve(known.cost, known.a, known.b, known.reg, tol=1e-12)
    # the judge of the integral is the grid, cut off at seven deviations
    close(r, known, 1e-10)


def test_gaussians_in_two_dimensions():
    known = testing.gaussians(29, 27, dim=2, reg=1.0)
    r = so.solve(known.cost, known.a, known.b, known.reg, tol=1e-9)
    close(r, known, 1e-7)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_one_point_takes_all(shape):
    p = testing.random(*shape)
    r = so.solve(p.cost, p.a, p.b, 0.01)
    torch.testing.assert_close(r.plan, p.a[:, None] * p.b[None, :])
    assert float(r.value) == pytest.approx(float((r.plan * p.cost).sum()))


def test_a_cost_of_rows_plus_columns_moves_nothing():
    p = testing.random(9, 14)
    C = p.cost[:, :1] + p.cost[:1, :]
    r = so.solve(C, p.a, p.b, 0.01, tol=1e-12)
    torch.testing.assert_close(r.plan, p.a[:, None] * p.b[None, :], atol=1e-13, rtol=0)
    torch.testing.assert_close(r.f[:, None] + r.g[None, :], C, atol=1e-10, rtol=0)


def test_large_reg_is_independence():
    p = testing.random(9, 14)
    r = so.solve(p.cost, p.a, p.b, 1e8)
    torch.testing.assert_close(r.plan, p.a[:, None] * p.b[None, :], atol=1e-9, rtol=0)


def test_small_reg_is_exact_transport():
    known = testing.line(30, 40)
    r = so.solve(known.cost, known.a, known.b, 1e-5)
    assert float(r.value_linear) == pytest.approx(known.value, abs=1e-4)
    bounds = r.certificate()
    assert float(bounds.lower) <= known.value + 1e-12
    assert float(bounds.upper) >= known.value - 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("reg", [1.0, 0.1, 0.01, 1e-3])
def test_the_judge(reg, zeros, method):
    p = testing.random(33, 47, reg, zeros=zeros, seed=3)
    truth = testing.judge(p.cost, p.a, p.b, p.reg)
    r = so.solve(p.cost, p.a, p.b, p.reg, method=method, tol=1e-12)
    close(r, truth, 1e-11)


@pytest.mark.slow(1)
@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (17, 5), (5, 31)])
def test_the_judge_on_small_sharp_problems(shape):
    """Few columns and small reg: where extrapolation alone once went astray."""
    for seed in range(10):
        p = testing.random(*shape, 2e-3, zeros=seed % 3 == 0, seed=seed)
        truth = testing.judge(p.cost, p.a, p.b, p.reg)
        for method in METHODS:
            close(so.solve(p.cost, p.a, p.b, p.reg, method=method, tol=1e-12), truth, 1e-10)


def forbid(p: testing.Random, share: float) -> torch.Tensor:
    """Return the costs with a share of pairs forbidden, a tree of pairs kept open."""
    generator = torch.Generator().manual_seed(5)
    shut = torch.rand(p.cost.shape, generator=generator) < share
    shut[0], shut[:, 0] = False, False
    return p.cost.masked_fill(shut, math.inf)


@pytest.mark.parametrize("reg", [0.3, 0.03])
def test_forbidden_pairs(reg):
    p = testing.random(13, 17, reg, zeros=True)
    C = forbid(p, 0.5)
    truth = testing.judge(C, p.a, p.b, p.reg)
    r = so.solve(C, p.a, p.b, p.reg, tol=1e-12)
    close(r, truth, 1e-11)
    assert (r.plan[C.isinf()] == 0).all()
    assert torch.isfinite(r.f).all()
    assert torch.isfinite(r.g).all()


def test_no_plan_is_never_a_silent_answer():
    """Every row and column is open, and still two rows must share one half column."""
    inf = math.inf
    C = torch.tensor([[0, inf, inf], [0, inf, inf], [0, 0, 0]], dtype=torch.float64)
    with pytest.warns(so.ConvergenceWarning, match=r"No plan exists.*Rows \[0, 1\]"):
        r = so.solve(C, reg=0.1)
    assert r.status is so.Status.INFEASIBLE
    assert not r.converged
    assert float(r.marginal_error) > 0.3


@pytest.mark.parametrize("reg", [1.0, 0.05])
def test_pot(reg):
    """POT's plan, its cost, and its potentials up to the conversions of the documentation."""
    p = testing.random(24, 31, reg, seed=7)
    a, b, C = p.a.numpy(), p.b.numpy(), p.cost.numpy()
    P, log = ot.sinkhorn(
        a, b, C, reg, method="sinkhorn_log", stopThr=1e-14, numItermax=10**5, log=True
    )
    r = so.solve(C, a, b, reg, tol=1e-13)
    np.testing.assert_allclose(r.plan, P, atol=1e-12)
    assert float(r.value_linear) == pytest.approx((P * C).sum(), abs=1e-12)
    # f = reg * (u - log a), and one constant may pass from f to g
    f, g = reg * (log["log_u"] - np.log(a)), reg * (log["log_v"] - np.log(b))
    shift = (r.f.numpy() - f).mean()
    np.testing.assert_allclose(r.f, f + shift, atol=1e-9)
    np.testing.assert_allclose(r.g, g - shift, atol=1e-9)
    # the KL objective is the entropic one plus reg * (H(a) + H(b))
    entropic = (P * C).sum() + reg * (P * np.log(P)).sum()
    entropy = -(a @ np.log(a)) - (b @ np.log(b))
    assert float(r.value) == pytest.approx(entropic + reg * entropy, abs=1e-12)


@pytest.mark.parametrize("n_iter", [1, 2, 7])
def test_fixed_iterations_are_the_textbook(n_iter):
    p = testing.random(11, 17, 0.2)
    K = torch.exp(-p.cost / p.reg)
    x, y = p.a, p.b
    for _ in range(n_iter):
        x = p.a / (K @ y)
        y = p.b / (K.T @ x)
    r = so.solve(p.cost, p.a, p.b, p.reg, n_iter=n_iter)
    torch.testing.assert_close(r.plan, x[:, None] * K * y[None, :], atol=1e-15, rtol=1e-12)
    assert r.status is so.Status.FIXED
    assert int(r.n_iter) == n_iter
    assert not r.converged
    # asked for, it is measured: the columns were moved last, the rows are off
    assert float(r.marginal_error) == pytest.approx(float((r.plan.sum(1) - p.a).abs().sum()))


def test_uniform_weights_are_the_default():
    p = testing.random(6, 9)
    mine = so.solve(p.cost, testing.uniform(6), testing.uniform(9), 0.1).plan
    torch.testing.assert_close(so.solve(p.cost, reg=0.1).plan, mine, atol=1e-16, rtol=1e-14)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "dot", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_points_and_their_costs_agree(metric, dtype):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(k, 3, generator=generator, dtype=torch.float64).to(dtype) for k in (40, 53))
    X, Y = x.double()[:, None], y.double()[None]
    C = {
        "sqeuclidean": lambda: (X - Y).square().sum(-1),
        "euclidean": lambda: (X - Y).square().sum(-1).sqrt(),
        "dot": lambda: -(X * Y).sum(-1),
        "cosine": lambda: 1 - torch.cosine_similarity(X, Y, dim=-1),
    }[metric]()
    tol = 1e-11 if dtype == torch.float64 else 1e-7
    dense, cloud = (
        so.solve(C, reg=0.2, tol=1e-11),
        so.solve(so.PointCloud(x, y, metric), reg=0.2, tol=tol),
    )
    assert cloud.f.dtype == dtype
    atol = 1e-11 if dtype == torch.float64 else 2e-7
    torch.testing.assert_close(cloud.plan.double(), dense.plan, atol=atol, rtol=0)
    torch.testing.assert_close(cloud.value.double(), dense.value, atol=100 * atol, rtol=0)


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
    ids=str,
)
def test_dtypes(given, got):
    p = testing.random(12, 15, 0.05)
    C = p.cost.to(given)
    r = so.solve(C, reg=0.05)
    for t in (r.plan, r.f, r.g, r.value, r.value_linear, r.dual_value, r.gap, r.marginal_error):
        assert t.dtype == got
    truth = testing.judge(C.double(), testing.uniform(12), testing.uniform(15), 0.05)
    # the answer for the costs as stored, to the default tolerance of the dtype
    off = float((r.plan.double() - truth.plan).abs().sum())
    assert off < 5 * (1e-9 if got == torch.float64 else 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_at_its_limits(dtype):
    """Costs up to the format's largest number, sharp: no overflow, no NaN."""
    p = testing.random(20, 30)
    C = (p.cost * torch.finfo(dtype).max).to(dtype)
    r = so.solve(C, reg=float(C.max()) / 100)
    assert r.converged
    for t in (r.plan, r.f, r.g, r.value):
        assert torch.isfinite(t).all()


@pytest.mark.slow(1)
@pytest.mark.parametrize("reg", [0.5, 0.02, 2e-3])
def test_float32_is_no_worse_than_plain_float32_code(reg):
    """At most twice the error of eager float32 log-domain iterations against float64 truth."""
    p = testing.random(64, 48, reg, seed=2)
    C, a, b = p.cost.float(), p.a.float(), p.b.float()
    truth = testing.judge(
        C.double(), a.double(), b.double() * (a.double().sum() / b.double().sum()), reg
    )
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    for _ in range(3000):
        f = a.log() - torch.logsumexp(g[None, :] - C / reg, 1)
        g = b.log() - torch.logsumexp(f[:, None] - C / reg, 0)
    eager = (f[:, None] + g[None, :] - C / reg).exp()
    off = float((eager.double() - truth.plan).abs().sum())
    # to so small an error that rounding alone is compared
    r = so.solve(C, a, b, reg, tol=1e-7)
    assert r.converged
    assert float((r.plan.double() - truth.plan).abs().sum()) <= 2 * max(off, 1e-6)


def test_a_sharper_float32_tolerance_is_met():
    p = testing.random(30, 40, 0.05)
    r = so.solve(p.cost.float(), reg=0.05, tol=1e-9)
    assert r.converged
    assert float((r.plan.double().sum(0) - 1 / 40).abs().sum()) < 1e-6


@pytest.mark.slow(1)
@pytest.mark.parametrize("offset", [-1e9, 1e6, 1e9])
@pytest.mark.parametrize("zeros", [False, True])
def test_an_offset_costs_no_digits_but_those_of_the_cost(offset, zeros):
    """The least cost is taken off before anything is rounded, and is in the potentials again."""
    p = testing.random(15, 20, 0.1, zeros=zeros)
    moved = forbid(p, 0.3) + offset
    truth = testing.judge(moved - offset, p.a, p.b, p.reg)
    solved = so.solve(moved, p.a, p.b, p.reg, tol=1e-12)
    both = so.solve(torch.stack([moved] * 2), p.a, p.b, p.reg, tol=1e-12)
    steps = so.solve(moved, p.a, p.b, p.reg, n_iter=2000)
    again = so.solve(moved, p.a, p.b, p.reg, n_iter=1, init=solved)
    rows = so.solve(moved, p.a, p.b, p.reg, n_iter=2000, init=(solved.f, None))
    for r in (solved, both, steps, again, rows):
        torch.testing.assert_close(r.plan, truth.plan.expand_as(r.plan), atol=1e-10, rtol=0)
        torch.testing.assert_close(r.plan.sum(-1), p.a.expand_as(r.f), atol=1e-10, rtol=0)
        value = torch.as_tensor(truth.value + offset, dtype=torch.float64)
        torch.testing.assert_close(r.value, value.expand_as(r.value), rtol=1e-13, atol=1e-10)
        P = p.a[:, None] * p.b * ((r.f[..., None] + r.g[..., None, :] - moved) / p.reg).exp()
        # potentials in units of the cost have its digits
        atol = 1e-14 * abs(offset) / p.reg
        torch.testing.assert_close(P, r.plan, atol=atol, rtol=0)
    c = solved.certificate()
    assert float(c.lower) <= truth.value + offset
    assert (c.f[:, None] + c.g <= moved).all()


@pytest.mark.parametrize("offset", [-1e5, 1e5])
@pytest.mark.parametrize("how", ["one", "shared", "own"])
def test_an_offset_in_single_precision(offset, how):
    p = testing.random(15, 20, 0.1)
    C = (p.cost + offset).float()
    a, b = testing.uniform(15), testing.uniform(20)
    truth = testing.judge(C.double() - offset, a, b, p.reg)
    a, b = (a, b) if how == "one" else (a.expand(2, -1), b.expand(2, -1))
    r = so.solve(torch.stack([C] * 2) if how == "own" else C, a, b, p.reg)
    assert r.converged.all()
    torch.testing.assert_close(r.plan.double(), truth.plan.expand_as(r.plan), atol=1e-7, rtol=0)


def test_what_rounding_hides_is_said():
    """The exponents have no digits left for this tolerance, and the result says so."""
    p = testing.random(15, 20, 0.1)
    C = p.cost.clone()
    # no constant to take off
    C[:7] += 1e11
    with pytest.warns(so.ConvergenceWarning):
        r = so.solve(C, p.a, p.b, p.reg)
    assert r.status is so.Status.STALLED
    true = (r.plan.sum(0) - p.b).abs().sum() + (r.plan.sum(1) - p.a).abs().sum()
    assert float(r.marginal_error) == pytest.approx(float(true), rel=0.5)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_scales(scale):
    p = testing.random(8, 9)
    plain = so.solve(p.cost, p.a, p.b, 0.1, tol=1e-12)
    r = so.solve(p.cost * scale, p.a, p.b, 0.1 * scale, tol=1e-12)
    torch.testing.assert_close(r.plan, plain.plan, atol=1e-11, rtol=0)
    torch.testing.assert_close(r.value / scale, plain.value, atol=1e-11, rtol=0)
    torch.testing.assert_close(r.f / scale, plain.f, atol=1e-9, rtol=0)


@pytest.mark.parametrize("scale", [1e-290, 1e-9, 1e9, 1e150])
def test_masses(scale):
    p = testing.random(8, 9)
    plain = so.solve(p.cost, p.a, p.b, 0.1, tol=1e-12)
    r = so.solve(p.cost, p.a * scale, p.b * scale, 0.1, tol=1e-12)
    torch.testing.assert_close(r.plan / scale, plain.plan, atol=1e-11, rtol=0)
    assert torch.isfinite(r.value)


def test_extreme_weights():
    p = testing.random(8, 9, 0.01)
    a = torch.tensor([1e-300, 1e-20, 1e-10, 0, 0.5, 0.5, 1e-320, 0], dtype=torch.float64)
    r = so.solve(p.cost, a, p.b, p.reg, tol=1e-12)
    assert r.converged
    normal = a > 1e-307
    torch.testing.assert_close(r.plan.sum(1)[normal], a[normal], rtol=1e-9, atol=0)
    assert (r.plan[a == 0] == 0).all()
    assert torch.isfinite(r.f).all()


def test_all_rows_equal():
    p = testing.random(1, 40, 0.003)
    r = so.solve(p.cost.expand(30, 40), testing.uniform(30), p.b, p.reg)
    torch.testing.assert_close(r.plan, (p.b / 30).expand(30, 40), atol=1e-12, rtol=0)


def test_a_fixed_number_of_sweeps_starts_from_either_side():
    """From f alone, g is what answers it: at the solution nothing moves."""
    p = testing.random(9, 7, 0.1)
    r = so.solve(p.cost, p.a, p.b, 0.1, tol=1e-13)
    for init in ((r.f, None), (None, r.g), r):
        again = so.solve(p.cost, p.a, p.b, 0.1, n_iter=1, init=init)
        torch.testing.assert_close(again.plan, r.plan, atol=1e-12, rtol=0)


def test_regularisation_may_be_a_list_of_whole_numbers():
    p = testing.random(9, 7)
    r = so.solve(torch.stack([p.cost] * 2), p.a, p.b, [1, 2])
    one = so.solve(p.cost, p.a, p.b, 2.0)
    torch.testing.assert_close(r.plan[1], one.plan)


def test_penalties_may_be_an_array():
    p = testing.random(9, 7)
    r = so.solve(p.cost, p.a, p.b, 0.5, unbalanced=np.array([1.0, 2.0]))
    torch.testing.assert_close(r.plan, so.solve(p.cost, p.a, p.b, 0.5, unbalanced=(1.0, 2.0)).plan)


@pytest.mark.slow(1)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", METHODS)
def test_what_has_no_plan_is_told_with_the_error_of_its_plan(seed, method):
    """Two rows share one small column: potentials drift, and the plan must own up to it."""
    p = testing.random(6, 7, 0.01, seed=seed)
    C = p.cost.clone()
    C[:2, 1:] = math.inf
    r = so.solve(C, p.a, p.b, 0.01, method=method, on_fail="ignore")
    assert not r.converged
    off = (r.plan.sum(1) - p.a).abs().sum() + (r.plan.sum(0) - p.b).abs().sum()
    assert float(r.marginal_error) == pytest.approx(float(off), rel=1e-3)


@pytest.mark.parametrize("constant", [0.0, 1e8, 1e12])
def test_the_error_is_that_of_the_plan_where_potentials_have_drifted(constant):
    """A constant changes no plan, but takes the digits of the potentials that make one."""
    p = testing.random(13, 18, 0.1)
    g = torch.full((18,), constant, dtype=torch.float64)
    tol = max(1e-10, 1e-14 * constant)
    r = so.solve(p.cost, p.a, p.b, 0.1, init=(None, g), tol=tol, on_fail="ignore")
    off = (r.plan.sum(1) - p.a).abs().sum() + (r.plan.sum(0) - p.b).abs().sum()
    assert float(r.marginal_error) == pytest.approx(float(off), rel=1e-2, abs=1e-12)
    assert bool(r.converged) == (float(off) <= tol)


def test_single_precision_over_long_sides_takes_the_sweeps_of_double():
    """Column sums of 100,000 rows were summed term after term: the error stalled above tol."""
    C = torch.rand(100_000, 10, generator=torch.Generator().manual_seed(0))
    single, double = so.solve(C, reg=0.05), so.solve(C.double(), reg=0.05, tol=1e-6)
    assert single.converged
    assert int(single.n_iter) <= 2 * int(double.n_iter)
    assert float((single.plan - double.plan).abs().sum()) < 2e-6
