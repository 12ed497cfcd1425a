import pytest
import torch

from sinkhorn_ot.kernels.log_sums import log_sum_columns, log_sum_rows


BOTH = pytest.mark.parametrize("work", [torch.float32, torch.float64])


def means(p, transpose):
    """The reference, in the dtype of `p`."""
    if transpose:
        return torch.logsumexp(p.exponent() + p.u[:, :, None], -2)
    return torch.logsumexp(p.exponent() + p.v[:, None, :], -1)


def run(p, transpose, **options):
    kernel = log_sum_columns if transpose else log_sum_rows
    return kernel(p.C, p.u if transpose else p.v, p.inv_reg, **options)


def verify(p, transpose, within_budget):
    truth = p.exact_log_sum(p.u, -2) if transpose else p.exact_log_sum(p.v, -1)
    got = run(p, transpose)
    assert got.dtype == p.v.dtype
    within_budget(got, means(p.to(p.v.dtype), transpose), truth, scale=1.0)


@BOTH
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 17), (17, 65), (130, 257), (3, 5000), (5000, 3)], ids=str
)
def test_the_reference(dense, within_budget, shape, transpose):
    verify(dense(*shape), transpose, within_budget)


@BOTH
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_storage_in_fewer_bits(dense, within_budget, dtype, transpose):
    verify(dense(40, 300, dtype=dtype), transpose, within_budget)


@BOTH
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_and_strides(dense, within_budget, transpose, shared):
    p = dense(40, 70, B=3, shared=shared)
    p.C = torch.stack([p.C, p.C], -1)[..., 0]
    verify(p, transpose, within_budget)


@BOTH
@pytest.mark.parametrize("transpose", [False, True])
def test_a_sum_that_underflows_is_exact(dense, within_budget, transpose):
    p = dense(60, 70, reg=1e-4)
    p.C += torch.arange(60.0)[:, None] + torch.arange(70.0)
    p.v[0, 3] = -torch.inf
    p.u[0, 2] = -torch.inf
    verify(p, transpose, within_budget)


@BOTH
@pytest.mark.parametrize("transpose", [False, True])
def test_only_what_is_wanted(dense, transpose):
    p = dense(700, 800)
    only = torch.zeros(1, 800 if transpose else 700, dtype=torch.bool)
    only[0, 5] = True
    got = run(p, transpose, only=only)
    torch.testing.assert_close(got[only], means(p, transpose)[only])
    assert (got[~only] == -torch.inf).all()


@BOTH
@pytest.mark.parametrize("transpose", [False, True])
def test_nothing_to_sum(dense, transpose):
    p = dense(30, 40)
    p.C[:] = torch.inf
    assert (run(p, transpose) == -torch.inf).all()
