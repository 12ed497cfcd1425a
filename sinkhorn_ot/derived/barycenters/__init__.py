"""Barycentres: the measure that is nearest to several, by transport."""

from .call import barycenter
from .free import FreeBarycenter, free_barycenter
from .result import Barycenter


__all__ = [
    "Barycenter",
    "FreeBarycenter",
    "barycenter",
    "free_barycenter",
]
