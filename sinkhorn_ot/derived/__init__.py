"""Problems that are answered by solving others."""

from .distance import sinkhorn_distance
from .divergence import Divergence, SinkhornDivergence, sinkhorn_divergence
from .result import SinkhornDistance


__all__ = [
    "Divergence",
    "SinkhornDistance",
    "SinkhornDivergence",
    "sinkhorn_distance",
    "sinkhorn_divergence",
]
