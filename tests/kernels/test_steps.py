"""Anderson's steps in two launches: those of the portable loop, sweep after sweep."""

import math
from dataclasses import asdict, replace

import pytest
import torch

from sinkhorn_ot.problem import PointCloud, make
from sinkhorn_ot.results import Status
from sinkhorn_ot.solvers import Sinkhorn
from sinkhorn_ot.solvers.acceleration import Anderson, Iterate
from sinkhorn_ot.solvers.steps import answer, column_error
from sinkhorn_ot.sweeps.reference import Reference


gpu = pytest.importorskip("sinkhorn_ot.sweeps.gpu", reason="triton is not installed")
moving = pytest.importorskip("sinkhorn_ot.kernels.steps")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def drawn(B: int, n: int, m: int):
    C = torch.rand(B, n, m, dtype=torch.float64)
    b = torch.rand(B, m, dtype=torch.float64)
    b[:, m // 2] = 0
    return make(C, None, b / b.sum(-1, keepdim=True), 0.05)


@pytest.mark.slow(3)
@pytest.mark.parametrize(("B", "n", "m"), [(1, 12, 9), (2, 10, 150)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_they_are_the_loop_s_own(B: int, n: int, m: int, dtype: torch.dtype) -> None:
    """From the same sums, so that no rounding adds up: each step beside the portable one."""
    p, how = drawn(B, n, m), Anderson(memory=5, begin=1.0)
    sweep, steps = Reference(p), how.start(p.b)
    run = moving.Run(p.b.to(DEVICE, dtype), **asdict(how))
    psi, u = torch.zeros_like(p.b), None
    for k in range(12):
        u, log_s = sweep.sweep(u, psi + p.b.log())
        error = column_error(p, psi, log_s)
        if k == 8:
            # what grew is taken back
            error, log_s = error * 100, log_s + torch.rand_like(log_s) * 3
            error = column_error(p, psi, log_s)
        residual = answer(sweep, u, psi, log_s, p.b.log()) - psi
        moved = steps(Iterate(psi, residual, error, u, sweep))
        got, off = run.step(u.to(DEVICE, dtype), psi.to(DEVICE, dtype), log_s.to(DEVICE, dtype))
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(off.cpu().double(), error, rtol=50 * eps, atol=50 * eps)
        if dtype == torch.float64 and k < 8:
            # equal but for a constant, and for what a system solved in float32 rounds
            gap = torch.where(p.b > 0, got.cpu() - moved, 0.0)
            gap = torch.where(p.b > 0, gap - gap[:, :1], 0.0)
            assert float(gap.abs().max()) <= 1e-2 * float(residual.abs().max()) + 1e-12
        assert bool(torch.isfinite(got).all())
        psi = moved


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("relax", [(0.5, 0.7), (None, 0.3), (2.0, None), (1e3, 50.0)])
def test_relaxed_columns_answer_as_the_loop_s_do(relax: object, dtype: torch.dtype) -> None:
    p = make(torch.rand(2, 9, 13, dtype=dtype), None, None, 0.2, relax)
    a, b = 1.5 * p.a, p.b.clone()
    b[0, 3] = a[1, 4] = 0
    p = replace(p, a=a, b=b)
    sweep, psi, log_b = Reference(p), 0.3 * torch.randn_like(b), b.log()
    psi[0, 3] = 0
    u, log_s = sweep.sweep(None, psi + log_b)
    log_s[1, 2] = -math.inf
    want = answer(sweep, u, psi, log_s, log_b) - psi
    error = column_error(p, psi, log_s)
    there = [t.to(DEVICE, dtype) for t in (psi, u, log_s, a, b, p.reg)]
    got, off = moving.answer(*there, p.relax, p.dtype)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(off.cpu().double(), error, rtol=20 * eps, atol=20 * eps)
    torch.testing.assert_close(got.cpu().double(), want, rtol=20 * eps, atol=20 * eps)


@pytest.mark.slow(4)
@pytest.mark.parametrize("relax", [(0.5, 0.7), (2.0, None)])
def test_a_relaxed_problem_arrives_in_as_many_sweeps(relax: object) -> None:
    p = make(torch.rand(2, 14, 11, dtype=torch.float64), None, None, 0.05, relax)
    want = Sinkhorn()(Reference(p), tol=1e-8, max_iter=200)
    found = Sinkhorn(check_every=1)(gpu.kernels(p), tol=1e-8, max_iter=200)
    assert found.status == want.status == [Status.CONVERGED] * 2
    assert (found.n_iter - want.n_iter).abs().max() <= 3
    torch.testing.assert_close(found.u, want.u, atol=1e-6, rtol=0)


@pytest.mark.slow(4)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_cloud_arrives_in_as_many_sweeps(dtype: torch.dtype) -> None:
    x, y = torch.rand(2, 20, 2, dtype=dtype), torch.rand(2, 24, 2, dtype=dtype)
    p = make(PointCloud(x, y), reg=0.02)
    tol = 1e-8 if dtype == torch.float64 else 1e-5
    want = Sinkhorn()(Reference(p), tol=tol, max_iter=200)
    single = make(PointCloud(x.to(DEVICE), y.to(DEVICE)), reg=0.02)
    single = replace(single, a=single.a.to(dtype), b=single.b.to(dtype), reg=single.reg.to(dtype))
    found = Sinkhorn(check_every=1)(gpu.kernels(single), tol=tol, max_iter=200)
    assert found.status == [Status.CONVERGED] * 2
    assert (found.n_iter.cpu() - want.n_iter).abs().max() <= 3
    u, v = found.u.cpu().double(), found.v.cpu().double()
    mass = Reference(p).apply(u, v, torch.ones_like(p.b)[..., None])[..., 0]
    assert ((mass - p.a).abs().sum(-1) <= 2 * tol).all()


@pytest.mark.filterwarnings("ignore:All-NaN")
def test_one_that_is_no_number_says_so() -> None:
    b = torch.full((1, 4), 0.25, device=DEVICE)
    run = moving.Run(b, **asdict(Anderson()))
    _, error = run.step(b, torch.zeros_like(b), torch.full_like(b, math.nan))
    assert bool(error.isnan().all())
