"""Derivatives: of solutions by what they were made of, and of a fixed number of steps."""

from .derivatives import differentiable
from .layer import normalize
from .steps import stepwise


__all__ = ["differentiable", "normalize", "stepwise"]
