"""Which problems are matchings that shortest augmenting paths find sooner than the simplex does."""

import numpy as np
import numpy.typing as npt

from .candidates import MANY


Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# weights no more than this factor apart are equal
EQUAL = 1 + 1e-14
# points up to which any matching is quick, and rows and columns looked at beyond that
_FEW = 64
# directions in which the costs of more points must vary: points in the plane give their rows two,
# and then the simplex is as quick, and the shortest paths that prove a matching are long
_DIRECTIONS = 6.0


def as_matching(R: Array, a: Array, b: Array) -> Mask:
    """Return which problems are better matched than given to the simplex, (B,).

    Args:
        R: Costs of a batch, or one that all share, (B, n, m) or (1, n, m).
        a: Source weights, (B, n).
        b: Target weights, (B, m).
    """
    n, m = R.shape[1:]
    if n != m or n * m >= MANY:
        return np.zeros(len(a), bool)
    low, high = np.minimum(a.min(1), b.min(1)), np.maximum(a.max(1), b.max(1))
    equal: Mask = (low > 0) & (high <= low * EQUAL)
    if not equal.any():
        return equal
    k = np.linspace(0, n - 1, _FEW).astype(int) if n > _FEW else np.arange(n)
    X = R[:, k[:, None], k]
    fits = np.isfinite(X).all((1, 2))
    return equal & (fits if n <= _FEW else fits & (_directions(X) > _DIRECTIONS))


def _directions(X: Array) -> Array:
    """Return in how many directions rows differ, beyond offsets: tr(G)^2 / |G|^2, (B,)."""
    X = X - X.mean(1, keepdims=True)
    X -= X.mean(2, keepdims=True)
    G = X @ X.transpose(0, 2, 1)
    square = (G * G).sum((1, 2))
    trace = np.trace(G, axis1=1, axis2=2)
    found: Array = np.divide(trace * trace, square, out=np.zeros_like(square), where=square > 0)
    return found
