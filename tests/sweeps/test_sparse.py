"""Sweeps over the entries that count: equal to sweeps over all, or refused."""

import math

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.problem import Problem, make
from sinkhorn_ot.solvers.automatic import SWITCH
from sinkhorn_ot.sweeps.portable import sparse, stored
from sinkhorn_ot.sweeps.portable.sparse import SparseKernel, may_be_sparse
from sinkhorn_ot.sweeps.reference import Reference


def sharp(n: int = 300, m: int = 260, reg: float = 1e-4, *, zeros: bool = False) -> Problem:
    p = testing.random(n, m, reg, zeros=zeros)
    return make(p.cost, p.a, p.b, reg)


def built(p: Problem, v: torch.Tensor) -> SparseKernel | None:
    blocks = ((rows, v[:, None, :] - C / p.reg) for rows, C in p.cost.tiles(37))
    return SparseKernel.build(p, blocks, v)


def close(p: Problem, seed: int = 0) -> torch.Tensor:
    """Potentials a few sweeps from the start: no column lives on nothing."""
    psi = so.solve(p.cost, p.a, p.b, p.reg, tol=1e-2, on_fail="ignore").g / p.reg
    return psi + p.b.log()


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("drift", [0.0, 5.0, 11.0, 40.0])
def test_a_sweep_of_the_few_is_a_sweep(drift, zeros):
    """For potentials anywhere in the neighbourhood, columns that almost nothing reaches aside."""
    p = sharp(zeros=zeros)
    v = close(p)
    narrow = built(p, v)
    assert narrow is not None
    move = drift * torch.sin(torch.arange(v.shape[1], dtype=v.dtype))
    assert narrow.serves(v + move)
    answer = narrow.sweep(v + move)
    u, log_s = Reference(p).sweep(None, v + move)
    if answer is None:
        # refused where the sums are less than the entries left out might come to
        assert float(log_s[p.b > 0].min()) < -20
        return
    torch.testing.assert_close(answer[0], u, atol=1e-11, rtol=1e-13)
    torch.testing.assert_close(answer[1], log_s, atol=1e-9, rtol=1e-11)


def test_most_potentials_are_served():
    """Else the test above would prove nothing."""
    p = sharp()
    v = close(p)
    narrow = built(p, v)
    for drift in (0.0, 5.0, 11.0):
        move = drift * torch.sin(torch.arange(v.shape[1], dtype=v.dtype))
        assert narrow.serves(v + move)
        assert narrow.sweep(v + move) is not None


def test_far_potentials_are_refused():
    p = sharp()
    v = close(p)
    narrow = built(p, v)
    move = torch.zeros_like(v)
    move[0, 7] = 100.0
    assert not narrow.serves(v + move)


def test_what_is_sparse_serves_again_after_a_step_that_is_taken_back():
    """And is looked for elsewhere only if steps stay there."""
    p = sharp()
    v = close(p)
    lost, elsewhere = v.clone(), v.clone()
    lost[0, 7] -= 100.0
    elsewhere[0, 7] += 100.0
    kernel = stored.StoredKernel(p, torch.float64)
    kernel.sweep(None, v)
    first = kernel._sparse
    assert first is not None
    for _ in range(3):
        kernel.sweep(None, lost)
        u, log_s = kernel.sweep(None, v)
        expected = Reference(p).sweep(None, v)
        torch.testing.assert_close(log_s, expected[1], atol=1e-9, rtol=1e-11)
        torch.testing.assert_close(kernel.curve(u, v), Reference(p).curve(u, v), atol=1e-13, rtol=0)
        assert kernel._sparse is first
    assert kernel.share(v) < 1
    assert kernel.share(lost) == 1
    # within reach, but on entries that were left out
    starved = v.clone()
    starved[0, 7] -= 45.0
    assert first.serves(starved)
    assert first.sweep(starved) is None
    kernel.sweep(None, starved)
    assert kernel.share(starved) == 1
    kernel.sweep(None, v)
    assert kernel.share(v) < 1
    for _ in range(4 * stored._ASTRAY):
        kernel.sweep(None, elsewhere)
    assert kernel._sparse is not first


def test_columns_that_live_on_what_was_dropped_are_refused():
    """From the start, most columns are nobody's nearest."""
    p = sharp()
    v = p.b.log()
    assert built(p, v).sweep(v) is None


def test_wide_plans_are_refused():
    assert built(sharp(reg=0.05), sharp().b.log()) is None
    assert not may_be_sparse(sharp(reg=0.05))
    assert may_be_sparse(sharp())
    assert not may_be_sparse(sharp(20, 20))


def test_forbidden_rows_and_pairs():
    p = testing.random(300, 260)
    C = p.cost.clone()
    C[5], C[:, 9] = torch.inf, torch.inf
    a, b = p.a.clone(), p.b.clone()
    a[5] = b[9] = 0.0
    a, b = a / a.sum(), b / b.sum()
    p = make(C, a, b, 1e-4)
    v = close(p)
    u, log_s = built(p, v).sweep(v)
    expected = Reference(p).sweep(None, v)
    torch.testing.assert_close(u, expected[0], atol=1e-11, rtol=1e-13)
    torch.testing.assert_close(log_s, expected[1], atol=1e-9, rtol=1e-11)
    assert u[0, 5] == -math.inf


@pytest.mark.parametrize("zeros", [False, True])
def test_the_curve(zeros):
    p = sharp(zeros=zeros)
    v = close(p)
    narrow = built(p, v)
    u, _ = narrow.sweep(v)
    W = Reference(p).curve(u, v)
    torch.testing.assert_close(narrow.curve(u, v), W, atol=1e-14, rtol=0)
    x = torch.randn(1, v.shape[1], 1, dtype=v.dtype, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        narrow.curve_product(u, v)(x[:, :, 0]), (W @ x)[:, :, 0], atol=1e-14, rtol=0
    )


def points(n: int, m: int) -> torch.Tensor:
    x, y = (torch.rand(k, 2, generator=torch.Generator().manual_seed(k)).double() for k in (n, m))
    return torch.cdist(x, y).square()


@pytest.mark.parametrize("of_points", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_solves_agree_with_those_that_drop_nothing(of_points, dtype, monkeypatch):
    p = testing.random(300, 260)
    cost = points(300, 260) if of_points else p.cost
    reg = 2e-4 * float(cost.max())
    used = []
    sweep = SparseKernel.sweep
    monkeypatch.setattr(SparseKernel, "sweep", lambda self, v: used.append(1) or sweep(self, v))
    few = so.solve(cost.to(dtype), p.a, p.b, reg, tol=1e-6, method=SWITCH)
    assert len(used) > 5
    monkeypatch.setattr(stored, "may_be_sparse", lambda problem: False)
    every = so.solve(cost.to(dtype), p.a, p.b, reg, tol=1e-6, method=SWITCH)
    assert few.converged
    assert every.converged
    # marginals measured on the plan, which forms every entry
    off = (few.plan.double().sum(1) - p.a).abs().sum() + (
        few.plan.double().sum(0) - p.b
    ).abs().sum()
    assert float(off) <= 1.1e-6
    assert float(few.value) == pytest.approx(float(every.value), abs=1e-6)


@pytest.mark.parametrize("shape", [(150, 1500), (1500, 150), (400, 500)])
@pytest.mark.parametrize(
    "method",
    ["auto", *(pytest.param(m, marks=pytest.mark.slow(1)) for m in (SWITCH, "sinkhorn", "newton"))],
)
@pytest.mark.parametrize("strides", ["rows", "columns", "every other"])
def test_any_shape_and_strides(shape, method, strides):
    """Wide costs are transposed inside."""
    n, m = shape
    C = testing.random(n, m).cost
    C = {"rows": C, "columns": C.T.contiguous().T, "every other": C.repeat(1, 2)[:, ::2]}[strides]
    C = C if strides != "every other" else C.repeat_interleave(2, 0)[::2]
    r = so.solve(C, reg=2e-4, method=method, tol=1e-6)
    assert r.converged
    off = (r.plan.sum(1) - 1 / n).abs().sum() + (r.plan.sum(0) - 1 / m).abs().sum()
    assert float(off) < 1e-6
    # the certificate shares nothing with the sweeps
    c = r.certificate()
    assert float(c.gap) < 2e-4 * 12


def test_what_is_dropped_is_bounded():
    """By the constants: what a row may lose is less than rounding."""
    for m in (10, 10**6):
        lost = m * math.exp(sparse._cut(m, sparse._CLOSE) + 2 * sparse._CLOSE)
        assert lost < 1e-17
