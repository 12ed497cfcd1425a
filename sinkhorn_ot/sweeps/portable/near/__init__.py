"""Sweeps of clouds that look at near points only."""

from .near import Near


__all__ = ["Near"]
