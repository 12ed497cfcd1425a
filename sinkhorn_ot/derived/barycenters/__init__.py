"""Barycentres: the measure that is nearest to several, by transport."""

from .call import barycenter
from .result import Barycenter


__all__ = [
    "Barycenter",
    "barycenter",
]
