"""Linear systems of graph Laplacians, which Hessians of the semi-dual are."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import needs


# what is added to the diagonal of a Hessian, relative to b
JOINED = 1e-12


def factorised(W: Tensor, joined: Tensor) -> Tensor:
    """Return the Cholesky factor of diag(W 1 + joined) - W in place of W; NaN where there is none.

    The diagonal of W, (B, m, m), is not read. What joins the parts of a graph may be lost to
    rounding, and the constant is without any: next to nothing, (B, m), gives each a direction.
    """
    M = W.neg_()
    diagonal = M.diagonal(dim1=-2, dim2=-1)
    diagonal.zero_()
    degree = joined - M.sum(-1)
    # a point without links and weight gets zero
    diagonal.copy_(torch.where(degree > 0, degree, 1.0))
    info = torch.empty(len(M), dtype=torch.int32, device=M.device)
    torch.linalg.cholesky_ex(M, out=(M, info))
    return M.masked_fill_((info != 0)[:, None, None], math.nan)


def solve_sparse(W: Any, joined: Tensor, right: Tensor, b: Tensor) -> Tensor:
    """Return x with (diag(W 1 + joined) - W) x = right and <b, x> = 0, (m,); NaN if there is none.

    W is a symmetric SciPy array of few entries, whose diagonal is not read; `right` sums to zero.
    """
    # imported here: a solve without sharp plans never pays for it
    with needs("scipy"):
        from scipy.sparse import diags_array
        from scipy.sparse.linalg import splu

    links = W - diags_array(W.diagonal())
    degree = links.sum(0) + joined.numpy()
    degree[degree <= 0] = 1.0
    try:
        # what is diagonally dominant needs no pivots, and neighbours' graph fills little
        factor = splu(
            (diags_array(degree) - links).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    except RuntimeError:
        return torch.full_like(right, math.nan)
    x = torch.from_numpy(factor.solve(right.numpy()))
    return x - (b * x).sum() / b.sum()


def solve_laplacian(factor: Tensor, right: Tensor, b: Tensor) -> Tensor:
    """Return x with <b, x> = 0 from a factor, for a right side that sums to zero, (B, m)."""
    x = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
    # a constant means nothing, and rounding would decide it
    return x - (b * x).sum(-1, keepdim=True) / b.sum(-1, keepdim=True)


def by_diagonal(diagonal: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what divides by a diagonal; zero where that is none."""
    inverse = torch.where(diagonal > 0, 1 / diagonal.clamp(min=1e-300), 0.0)
    return lambda x: inverse * x


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    inverse: Callable[[Tensor], Tensor],
    right: Tensor,
    target: Tensor,
    most: Tensor,
) -> tuple[Tensor, Tensor]:
    """Solve product(x) = right by conjugate gradients, preconditioned by about its inverse.

    Each problem of the batch stops by itself, once its preconditioned residual has fallen to
    `target` of what it was, or after `most` products, (B,).

    Returns:
        About the solution, (B, m), and which problems came as far, (B,).
    """
    x, residual = torch.zeros_like(right), right
    z = inverse(residual)
    direction, rho = z, (residual * z).sum(-1)
    goal, running = target.square() * rho, rho > 0
    for made in itertools.count(1):
        if not bool(running.any()):
            break
        image = product(direction)
        curvature = (direction * image).sum(-1)
        running = running & (curvature > 0)
        length = torch.where(running, rho / curvature, 0.0)[:, None]
        x, residual = x + length * direction, residual - length * image
        z = inverse(residual)
        after = (residual * z).sum(-1)
        direction = z + (after / rho.clamp(min=1e-300))[:, None] * direction
        rho = torch.where(running, after, rho)
        running = running & (rho > goal) & (made < most)
    return x, rho <= goal
