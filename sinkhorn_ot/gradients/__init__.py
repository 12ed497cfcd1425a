"""Derivatives of entropic results by the arguments that they were made of."""

from .derivatives import differentiable


__all__ = ["differentiable"]
