"""The Sinkhorn divergence: transport less what it costs to move each measure onto itself."""

from .debiased import sinkhorn_divergence
from .loss import SinkhornDivergence
from .result import Divergence


__all__ = [
    "Divergence",
    "SinkhornDivergence",
    "sinkhorn_divergence",
]
