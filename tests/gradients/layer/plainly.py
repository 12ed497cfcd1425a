"""The layer written out: matrices scaled in turn, with autograd through every step."""

import torch
from torch import Tensor


def by_scaling(x: Tensor, n_iter: int, a: Tensor, b: Tensor) -> Tensor:
    """Scale exp(x) itself, which holds small exponents only, to weights that may be zero."""
    E = x.exp()
    row, column, beta = None, None, torch.ones_like(E[..., :1, :])
    for _ in range(n_iter):
        row = a[..., :, None] * inverse((E * beta).sum(-1, keepdim=True))
        column = b[..., None, :] * inverse((E * row).sum(-2, keepdim=True))
        beta = column
    return E if row is None else E * row * column


def inverse(total: Tensor) -> Tensor:
    """Return one over sums, zero for those of nothing."""
    return torch.where(total > 0, 1 / torch.where(total > 0, total, 1.0), 0.0)


def by_logs(x: Tensor, n_iter: int, a: Tensor, b: Tensor) -> Tensor:
    """Return the log of the matrix, for weights above zero."""
    for _ in range(n_iter):
        x = x - torch.logsumexp(x, -1, keepdim=True) + a.log()[..., :, None]
        x = x - torch.logsumexp(x, -2, keepdim=True) + b.log()[..., None, :]
    return x


def weights(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return random weights above zero."""
    return torch.rand(shape, dtype=dtype) + 0.1
