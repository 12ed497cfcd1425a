"""Problems that are answered by solving others, and a layer of the steps that solve them."""

from .distance import sinkhorn_distance
from .divergence import Divergence, SinkhornDivergence, sinkhorn_divergence
from .layer import normalize
from .result import SinkhornDistance


__all__ = [
    "Divergence",
    "SinkhornDistance",
    "SinkhornDivergence",
    "normalize",
    "sinkhorn_distance",
    "sinkhorn_divergence",
]
