import math

import pytest
import torch

from sinkhorn_ot.kernels.batched import solve


def problem(B, n, m, reg=0.1, shared=False, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    C = torch.rand(1 if shared else B, n, m, generator=g).to(dtype)
    a, b = torch.rand(B, n, generator=g) + 0.1, torch.rand(B, m, generator=g) + 0.1
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    return C, a, b, torch.full((B,), 1 / reg)


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
    truth = eager(*(t.double() for t in args), n_iter)
    for name, got, e, t in zip(
        "uv", (u, v), eager(*(t.float() for t in args), n_iter), truth, strict=True
    ):
        within_budget(got, e, t, name)
    assert (count == n_iter).all()
    P = plan(args[0].double(), *truth, args[3].double())
    off = (P.sum(2) - args[1]).abs().sum(1) + (P.sum(1) - args[2]).abs().sum(1)
    off = off / args[1].double().sum(1)
    # what float32 can tell of the plan: potentials and exponents are rounded
    rounding = 4 * 2**-24 * truth[0][truth[0].isfinite()].abs().max().item() + 1e-6
    torch.testing.assert_close(error.double(), off, rtol=1e-3, atol=rounding)


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (5, 4, 4), (70, 4, 4), (3, 1, 17), (3, 17, 3), (2, 65, 33), (1, 100, 127)],
    ids=str,
)  # fmt: skip
def test_the_reference(within_budget, shape):
    verify(problem(*shape), 5, within_budget)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_shared_cost_in_16_bits_and_other_strides(within_budget, dtype):
    C, *rest = problem(3, 20, 30, shared=True, dtype=dtype)
    verify((C, *rest), 4, within_budget)
    verify((C.mT.contiguous().mT, *rest), 4, within_budget)
    verify((torch.stack([C, C], -1)[..., 0], *rest), 4, within_budget)


def test_zero_weights_and_forbidden_pairs(within_budget):
    C, a, b, inv_reg = problem(3, 20, 30)
    a[0, 3], b[1, 4], C[2, 5, :20] = 0, 0, math.inf
    verify((C, a, b, inv_reg), 6, within_budget)
    u, v, *_ = solve(C, a, b, inv_reg, 6)
    assert u[0, 3] == -math.inf
    assert v[1, 4] == -math.inf


@pytest.mark.parametrize("reg", [1e-3, 1e-4])
def test_sums_that_underflow_are_rescued(within_budget, reg):
    C, a, b, inv_reg = problem(2, 30, 40, reg=reg)
    verify((C + torch.arange(30.0)[:, None], a, b, inv_reg), 4, within_budget)


@pytest.mark.slow(1)
def test_each_problem_stops_when_it_is_solved():
    C, a, b, inv_reg = problem(6, 12, 15)
    inv_reg = torch.tensor([1.0, 2, 5, 10, 20, 1000])
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
