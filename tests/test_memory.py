"""Large tensors are tensors like others."""

import pytest
import torch

from sinkhorn_ot._memory import empty


CPU = torch.device("cpu")


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
