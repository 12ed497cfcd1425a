"""Engines: what finds a plan and potentials, which nobody has to trust."""

from .batched import Flows, along_forest, assignments, matched, pivots, simplex_of
from .candidates import MANY
from .choice import EQUAL, as_matching
from .forest import climbed
from .pot import compiled
from .table import BATCHED, ENGINES, EngineName, Flow, network_simplex


__all__ = [
    "BATCHED",
    "ENGINES",
    "EQUAL",
    "EngineName",
    "Flow",
    "Flows",
    "MANY",
    "along_forest",
    "as_matching",
    "assignments",
    "climbed",
    "compiled",
    "matched",
    "network_simplex",
    "pivots",
    "simplex_of",
]
