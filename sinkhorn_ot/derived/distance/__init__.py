"""Cuturi's distance: transport with a hard bound on the information of the plan."""

from .call import sinkhorn_distance
from .result import SinkhornDistance


__all__ = [
    "SinkhornDistance",
    "sinkhorn_distance",
]
