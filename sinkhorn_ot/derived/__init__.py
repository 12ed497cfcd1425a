"""Problems that are answered by solving others."""

from .barycenters import Barycenter, FreeBarycenter, barycenter, free_barycenter
from .distance import SinkhornDistance, sinkhorn_distance
from .divergence import Divergence, SinkhornDivergence, sinkhorn_divergence
from .line import LineTransport, SlicedDistance, sliced_distance, solve_1d


__all__ = [
    "Barycenter",
    "Divergence",
    "FreeBarycenter",
    "LineTransport",
    "SinkhornDistance",
    "SinkhornDivergence",
    "SlicedDistance",
    "barycenter",
    "free_barycenter",
    "sinkhorn_distance",
    "sinkhorn_divergence",
    "sliced_distance",
    "solve_1d",
]
