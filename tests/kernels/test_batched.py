import math

import numpy as np
import pytest
import torch
from longer import log_sum, long

from sinkhorn_ot.kernels.batched import fits, solve


BOTH = pytest.mark.parametrize("work", [torch.float32, torch.float64])


def problem(B, n, m, reg=0.1, shared=False, dtype=None, work=torch.float32):
    new = {"generator": torch.Generator().manual_seed(0), "dtype": work}
    C = torch.rand(1 if shared else B, n, m, **new).to(dtype or work)
    a, b = torch.rand(B, n, **new) + 0.1, torch.rand(B, m, **new) + 0.1
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    return C, a, b, torch.full((B,), 1 / reg, dtype=work)


def exactly(C, a, b, inv_reg, n_iter):
    """Rows, then columns, with more digits than float64 has."""
    C, a, b, inv_reg = (long(t) for t in (C, a, b, inv_reg))
    z, v = -C * inv_reg[:, None, None], np.log(b)
    for _ in range(n_iter):
        u = np.log(a) - log_sum(z + v[:, None, :], 2)
        v = np.log(b) - log_sum(z + u[:, :, None], 1)
    return u, v


def eager(C, a, b, inv_reg, n_iter):
    """Rows, then columns, in the dtype of the arguments."""
    z, u, v = -C * inv_reg[:, None, None], None, b.log()
    for _ in range(n_iter):
        u = a.log() - torch.logsumexp(z + v[:, None, :], 2)
        v = b.log() - torch.logsumexp(z + u[:, :, None], 1)
    return u, v


def plan(C, u, v, inv_reg):
    return (u[:, :, None] + v[:, None, :] - C * inv_reg[:, None, None]).exp()


def verify(args, n_iter, within_budget):
    u, v, error, count = solve(*args, n_iter)
    truth, work = exactly(*args, n_iter), args[1].dtype
    assert u.dtype == v.dtype == error.dtype == work
    for name, got, e, t in zip(
        "uv", (u, v), eager(*(t.to(work) for t in args), n_iter), truth, strict=True
    ):
        within_budget(got, e, t, name)
    assert (count == n_iter).all()
    truth = [torch.from_numpy(t.astype(np.float64)) for t in truth]
    P = plan(args[0].double(), *truth, args[3].double())
    off = (P.sum(2) - args[1]).abs().sum(1) + (P.sum(1) - args[2]).abs().sum(1)
    off = off / args[1].double().sum(1)
    # what a dtype can tell of the plan: potentials and exponents are rounded
    eps = torch.finfo(work).eps
    rounding = 2 * eps * truth[0][truth[0].isfinite()].abs().max().item() + 8 * eps
    torch.testing.assert_close(error.double(), off, rtol=1e-3, atol=rounding)


@BOTH
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (5, 4, 4), (70, 4, 4), (3, 1, 17), (3, 17, 3), (2, 65, 31)],
    ids=str,
)  # fmt: skip
def test_the_reference(within_budget, shape, work):
    verify(problem(*shape, work=work), 5, within_budget)


@pytest.mark.parametrize(
    ("shape", "work"), [((100, 127), torch.float32), ((50, 64), torch.float64)], ids=str
)
def test_the_largest(within_budget, shape, work):
    verify(problem(1, *shape, work=work), 5, within_budget)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_shared_cost_in_16_bits_and_other_strides(within_budget, dtype):
    C, *rest = problem(3, 20, 30, shared=True, dtype=dtype)
    verify((C, *rest), 4, within_budget)
    verify((C.mT.contiguous().mT, *rest), 4, within_budget)
    verify((torch.stack([C, C], -1)[..., 0], *rest), 4, within_budget)


@BOTH
def test_zero_weights_and_forbidden_pairs(within_budget, work):
    C, a, b, inv_reg = problem(3, 20, 30, work=work)
    a[0, 3], b[1, 4], C[2, 5, :20] = 0, 0, math.inf
    verify((C, a, b, inv_reg), 6, within_budget)
    u, v, *_ = solve(C, a, b, inv_reg, 6)
    assert u[0, 3] == -math.inf
    assert v[1, 4] == -math.inf


@BOTH
@pytest.mark.parametrize("reg", [1e-3, 1e-4])
def test_sums_that_underflow_are_rescued(within_budget, reg, work):
    C, a, b, inv_reg = problem(2, 30, 40, reg=reg, work=work)
    verify((C + torch.arange(30.0)[:, None], a, b, inv_reg), 4, within_budget)


@BOTH
@pytest.mark.slow(1)
def test_each_problem_stops_when_it_is_solved(work):
    C, a, b, inv_reg = problem(6, 12, 15, work=work)
    inv_reg = torch.tensor([1.0, 2, 5, 10, 20, 1000], dtype=work)
    u, v, error, count = solve(C, a, b, inv_reg, 120, tol=1e-5)
    assert (error[:5] < 1.2e-5).all()
    assert count[5] == 120
    assert error[5] > 1e-5
    assert count[0] < count[4] < 120
    for k in range(5):
        alone = solve(
            C[k : k + 1], a[k : k + 1], b[k : k + 1], inv_reg[k : k + 1], int(count[k]), tol=1e-5
        )
        torch.testing.assert_close(u[k : k + 1], alone[0])
        torch.testing.assert_close(v[k : k + 1], alone[1])
    P = plan(C.double(), u.double(), v.double(), inv_reg.double())
    torch.testing.assert_close(P.sum(2)[:5], a.double()[:5], rtol=1e-5, atol=1e-7)


def test_two_runs_agree_to_the_bit():
    args = problem(3, 33, 65)
    for x, y in zip(solve(*args, 5, 1e-4), solve(*args, 5, 1e-4), strict=True):
        assert torch.equal(x, y)


def test_what_is_small_in_float64():
    assert fits(32, 128, torch.float64)
    assert not fits(65, 65, torch.float64)
    assert fits(128, 128, torch.float32)
    assert not fits(4, 129, torch.float32)
