"""Sweeps of clouds that look at near points only."""

from .near import Near
from .tree import blocks, by_sorts


__all__ = ["Near", "blocks", "by_sorts"]
