"""What adapters share of their arguments: a mean that a rank without samples has too."""

import torch

from sinkhorn_ot.adapters.arguments import mean_of_rows


def test_a_mean_of_no_rows_is_zero_and_has_a_gradient():
    x = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    assert mean_of_rows(x).item() == 3.0
    none = mean_of_rows(x[:0])
    assert none.item() == 0.0
    none.backward()
    assert x.grad is not None
    assert (x.grad == 0).all()
