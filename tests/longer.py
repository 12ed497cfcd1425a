"""What kernels mean, with more digits than float64 has, so that float64 can be judged."""

import numpy as np
import numpy.typing as npt
from torch import Tensor


Long = npt.NDArray[np.longdouble]


def long(t: Tensor | Long) -> Long:
    """Return numbers in the longest format there is."""
    return t.double().numpy().astype(np.longdouble) if isinstance(t, Tensor) else t


def log_sum(z: Long, axis: int) -> Long:
    """Return the logarithm of the sum of exponentials; -inf where there is nothing to sum."""
    peak = z.max(axis, keepdims=True)
    peak[peak == -np.inf] = 0
    return np.log(np.exp(z - peak).sum(axis)) + peak.squeeze(axis)


def costs(x: Tensor, y: Tensor, metric: str) -> Long:
    """Return what one point (B, n, d) and another (B, m, d) cost, (B, n, m)."""
    left, right = long(x)[:, :, None], long(y)[:, None]
    if metric in ("sqeuclidean", "euclidean"):
        square = ((left - right) ** 2).sum(-1)
        return square if metric == "sqeuclidean" else np.sqrt(square)
    if metric == "manhattan":
        return abs(left - right).sum(-1)
    product = (left * right).sum(-1)
    if metric == "dot":
        return -product
    return 1 - product / np.sqrt((left**2).sum(-1) * (right**2).sum(-1))
