"""Problems that are answered by solving others."""

from .distance import sinkhorn_distance
from .result import SinkhornDistance


__all__ = [
    "SinkhornDistance",
    "sinkhorn_distance",
]
