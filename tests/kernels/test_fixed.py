"""Plain sweeps in two launches each, against the portable steps."""

import pytest
import torch

from sinkhorn_ot.kernels import fixed as kernels
from sinkhorn_ot.problem import make
from sinkhorn_ot.solvers.steps import fixed
from sinkhorn_ot.sweeps.reference import Reference


def compare(C, a, b, reg, n_iter=4, dtype=torch.float32, tol=2e-5):
    p = make(C.double(), a, b, reg, values=False)
    want = fixed(Reference(p), n_iter)
    inv_reg = torch.full((len(p.a),), 1 / reg, dtype=dtype)
    u, v = kernels.sweeps(
        C.reshape(-1, *C.shape[-2:]), p.a.to(dtype), p.b.to(dtype), inv_reg, n_iter
    )
    for got, truth in ((u, want.u), (v, want.v)):
        assert torch.equal(got == -torch.inf, truth == -torch.inf)
        torch.testing.assert_close(got.double(), truth, atol=tol, rtol=tol)


@pytest.mark.parametrize("shape", [(1, 1), (17, 65), (70, 33)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_the_plain_steps(shape, dtype):
    C = torch.rand(2, *shape, dtype=dtype)
    a, b = (torch.rand(2, k, dtype=torch.float64) + 0.1 for k in shape)
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    compare(C, a, b, 0.1, dtype=dtype, tol=2e-5 if dtype == torch.float32 else 1e-12)


def test_a_cost_may_be_shared_and_lie_anyhow():
    C = torch.rand(33, 17).mT
    compare(C.expand(1, 17, 33), torch.rand(3, 17).softmax(-1).double(), None, 0.2)


@pytest.mark.parametrize("reg", [1e-3, 0.05])
def test_columns_that_underflow_are_summed_again(reg):
    torch.manual_seed(0)
    C = torch.rand(40, 30)
    C[:, 3] += 20
    C[:, 29] += 0.5
    compare(C, None, None, reg, tol=2e-3 if reg < 0.01 else 1e-4)


def test_points_without_weight_or_partner():
    C = torch.rand(9, 14)
    C[4], C[:, 3] = torch.inf, torch.inf
    a, b = torch.rand(9).double(), torch.rand(14).double()
    a[2], b[5] = 0, 0
    compare(C, a / a.sum(), b / b.sum(), 0.3)
