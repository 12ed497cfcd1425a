"""Problems that are answered by solving others."""

from .distance import SinkhornDistance, sinkhorn_distance
from .divergence import Divergence, SinkhornDivergence, sinkhorn_divergence


__all__ = [
    "Divergence",
    "SinkhornDistance",
    "SinkhornDivergence",
    "sinkhorn_distance",
    "sinkhorn_divergence",
]
