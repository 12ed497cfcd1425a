"""Sweeps of clouds that look at near points only."""

from .near import Near
from .tree import by_sorts


__all__ = ["Near", "by_sorts"]
