"""Scores as loops hand them over."""

from typing import Any

from torch import Tensor

from sinkhorn_ot.problem import checks


def matrix(name: str, x: Any, shape: str) -> Tensor:
    """Return scores with two dimensions; arrays and lists are converted."""
    t = x if isinstance(x, Tensor) else checks.tensor(name, x)
    if t.ndim != 2:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(t.shape)}")
    return t
