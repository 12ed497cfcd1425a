"""The linear algebra of Newton's steps, beside dense solutions."""

import torch

from sinkhorn_ot.solvers import conjugate_gradients


def test_conjugate_gradients_of_a_batch_stop_each_by_itself():
    """One problem is solved before it begins, and one in a single step: the third goes on."""
    R = torch.randn(3, 8, 8, dtype=torch.float64)
    M = R @ R.mT + torch.eye(8, dtype=torch.float64)
    M[1] = torch.diag(torch.arange(1.0, 9.0))
    right = torch.randn(3, 8, dtype=torch.float64)
    right[0] = 0
    target = torch.full((3,), 1e-12, dtype=torch.float64)
    x = conjugate_gradients(
        lambda y: (M @ y[:, :, None])[:, :, 0], M.diagonal(dim1=1, dim2=2), right, target, 60
    )
    assert (x[0] == 0).all()
    torch.testing.assert_close(x, torch.linalg.solve(M, right), rtol=1e-9, atol=1e-10)
