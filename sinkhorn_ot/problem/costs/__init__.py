"""What it costs to move mass from point to point: stored, of clouds, of grids, or streamed."""

from .absent import Absent
from .cost import Bounds, Cost, blocks, broadcast, flatten, within
from .dense import Dense, as_cost
from .functions import Function
from .grid import GridCost
from .metrics import METRICS, MetricName
from .padding import Padded, padded, repeated
from .points import PointCloud
from .streamed import Facts, Streamed, filled, survey


__all__ = [
    "Absent",
    "Bounds",
    "Cost",
    "Dense",
    "Facts",
    "Function",
    "GridCost",
    "METRICS",
    "MetricName",
    "Padded",
    "PointCloud",
    "Streamed",
    "as_cost",
    "blocks",
    "broadcast",
    "filled",
    "flatten",
    "padded",
    "repeated",
    "survey",
    "within",
]
