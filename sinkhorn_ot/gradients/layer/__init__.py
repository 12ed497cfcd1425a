"""A layer: a fixed number of row and column normalisations, differentiable through all of them."""

from .layer import normalize


__all__ = ["normalize"]
