"""Sweeps of clouds that look at near points only."""

from .least import least_rows
from .near import Near
from .tree import blocks, by_sorts


__all__ = ["Near", "blocks", "by_sorts", "least_rows"]
