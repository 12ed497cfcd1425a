"""What it costs to move mass from point to point: stored, computed from clouds, or streamed."""

from .cost import Bounds, Cost, blocks, broadcast, flatten, within
from .dense import Dense, as_cost
from .metrics import METRICS
from .points import PointCloud
from .streamed import Facts, Streamed, filled, survey


__all__ = [
    "Bounds",
    "Cost",
    "Dense",
    "Facts",
    "METRICS",
    "PointCloud",
    "Streamed",
    "as_cost",
    "blocks",
    "broadcast",
    "filled",
    "flatten",
    "survey",
    "within",
]
