"""The linear systems of Newton's steps: small ones on this thread alone.

Threads that wait for others cost milliseconds where cores are busy, and PyTorch wakes them for
factors of any size. NumPy's products and factors of this size stay on the thread that asks.
"""

import numpy as np
import numpy.typing as npt
import torch


Array = npt.NDArray[np.float64]

# multiply-adds up to which OpenBLAS, NumPy's, makes a product without a second thread
_ALONE = 1 << 18


def squared(root: Array) -> Array:
    """Return root^T root, (m, m), of a root (n, m)."""
    found: Array
    if root.size * root.shape[1] <= _ALONE:
        found = root.T @ root
        return found
    # by torch, whose threads are the caller's choice
    held = torch.from_numpy(root)
    found = torch.mm(held.t(), held).numpy()
    return found


def divided(right: Array, H: Array, *, positive: bool) -> Array:
    """Return H^-1 right, (m,), which is no number where H is singular.

    Args:
        right: The right-hand side, (m,).
        H: A matrix (m, m).
        positive: Whether it is symmetric and positive definite.
    """
    found: Array
    if H.size * len(H) <= _ALONE:
        try:
            found = np.asarray(np.linalg.solve(H, right), np.float64)
        except np.linalg.LinAlgError:
            found = np.full_like(right, np.nan)
        return found
    b, held = torch.from_numpy(right[:, None]), torch.from_numpy(H)
    if positive:
        factor, _ = torch.linalg.cholesky_ex(held)
        step = torch.cholesky_solve(b, factor)
    else:
        step, _ = torch.linalg.solve_ex(held, b)
    found = step.numpy()[:, 0]
    return found
