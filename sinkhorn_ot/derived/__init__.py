"""Problems that are answered by solving others, and a layer of the steps that solve them."""

from .distance import sinkhorn_distance
from .layer import normalize
from .result import SinkhornDistance


__all__ = [
    "SinkhornDistance",
    "normalize",
    "sinkhorn_distance",
]
