"""exp that flushes to zero, against exp; large tensors are tensors like others."""

import math

import pytest
import torch

from sinkhorn_ot.sweeps.portable.cpu import (
    batch_column_sums,
    batch_row_sums,
    empty,
    exp_,
    normal_exp_,
)


DTYPES = (torch.float64, torch.float32)
CPU = torch.device("cpu")
# two ways to exponentiate may differ in the last digit
_ROUNDED = {dtype: 2 * torch.finfo(dtype).eps for dtype in DTYPES}


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_numbers_are_those_of_exp(dtype):
    least = -707.0 if dtype == torch.float64 else -87.0
    for low in (-5.0, least + 0.01):
        s = torch.linspace(low, 3.0, 999, dtype=dtype)
        torch.testing.assert_close(exp_(s.clone()), s.exp(), rtol=_ROUNDED[dtype], atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_no_normal_number_holds_is_zero(dtype):
    s = torch.tensor([[0.0, -90.0], [-800.0, -math.inf]], dtype=dtype)
    got = exp_(s.clone())
    want = torch.where(got > 0, s.exp(), 0.0)
    torch.testing.assert_close(got, want, rtol=_ROUNDED[dtype], atol=0)
    assert (got > 0).tolist() == [[True, dtype == torch.float64], [False, False]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("least", [-60.0, -5.5])
def test_a_cut_may_be_higher(dtype, least):
    s = torch.tensor([1.0, least + 0.001, least, least - 0.001, -math.inf], dtype=dtype)
    want = torch.where(s > least, s.exp(), 0.0)
    torch.testing.assert_close(exp_(s.clone(), least), want, rtol=_ROUNDED[dtype], atol=0)


@pytest.mark.parametrize("beside", [0.0, -1000.0])
def test_other_numbers_are_those_of_exp(beside):
    s = torch.tensor([math.nan, math.inf, beside], dtype=torch.float64)
    assert torch.equal(exp_(s.clone()).isnan(), torch.tensor([True, False, False]))
    assert exp_(s.clone())[1] == math.inf


def test_it_is_in_place():
    for s in (torch.zeros(3), torch.full((3,), -100.0)):
        assert exp_(s).data_ptr() == s.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(3,), (1, 7, 5), (1, 1031, 1021), (2, 1500, 700)])
def test_it_has_the_shape_and_keeps_its_numbers(shape, dtype):
    t = empty(shape, dtype, CPU)
    assert t.shape == shape
    assert t.dtype == dtype
    assert t.is_contiguous()
    assert t.data_ptr() % 64 == 0
    t.fill_(1.0)
    other = empty(shape, dtype, CPU).fill_(2.0)
    assert (t.sum(), other.sum()) == (t.numel(), 2 * t.numel())


@pytest.mark.parametrize(
    "shape", [(1, 20_000, 10), (1, 3, 20_000), (2, 1100, 7), (1, 1, 1)], ids=str
)
def test_long_sums_of_single_precision_keep_its_digits(shape):
    """Term after term, 20,000 positive numbers lose a digit and more of what a tolerance needs."""
    g = torch.Generator().manual_seed(0)
    K, w, x = (torch.rand(s, generator=g) for s in (shape, shape[:2], (shape[0], shape[2])))
    pairs = (
        (batch_column_sums(K, w).double(), torch.einsum("bnm,bn->bm", K.double(), w.double())),
        (batch_row_sums(K, x).double(), torch.einsum("bnm,bm->bn", K.double(), x.double())),
    )
    for got, want in pairs:
        assert float((got - want).abs().sum() / want.sum()) < 1.5e-7


def test_sums_of_double_precision_are_plain():
    K, w = torch.rand(1, 3000, 5).double(), torch.rand(1, 3000).double()
    torch.testing.assert_close(
        batch_column_sums(K, w).double(), (w[:, None] @ K)[:, 0], rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("size", [1 << 10, 1 << 17])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_who_exponentiates_does_not_matter(dtype, size, threads):
    s, before = torch.linspace(-80.0, 3.0, size, dtype=dtype)[::2], torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = normal_exp_(s.clone())
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(got, s.exp(), rtol=_ROUNDED[dtype], atol=0)
