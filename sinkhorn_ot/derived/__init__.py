"""Problems that are answered by solving others."""

from .distance import SinkhornDistance, sinkhorn_distance
from .divergence import Divergence, SinkhornDivergence, sinkhorn_divergence
from .line import LineTransport, SlicedDistance, sliced_distance, solve_1d


__all__ = [
    "Divergence",
    "LineTransport",
    "SinkhornDistance",
    "SinkhornDivergence",
    "SlicedDistance",
    "sinkhorn_distance",
    "sinkhorn_divergence",
    "sliced_distance",
    "solve_1d",
]
