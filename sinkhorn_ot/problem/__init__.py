"""What is asked: costs, weights and rules, checked once and frozen. It knows no solver."""

from . import checks
from .costs import (
    METRICS,
    Absent,
    Bounds,
    Cost,
    Dense,
    Facts,
    Function,
    GridCost,
    MetricName,
    Padded,
    PointCloud,
    Streamed,
    as_cost,
    blocks,
    broadcast,
    filled,
    flatten,
    survey,
    within,
)
from .making import make, make_plain, make_share, served, without_unserved
from .marginals import Mask, There, masked, mass_rtol
from .others import CALLS, Names, has_triton, needs
from .penalties import KL, L2, TV, Between, Moved, Penalty
from .problem import Beside, Holders, Problem, Spread
from .regularisation import Unresolved
from .relaxation import Unbalanced, asked
from .rows import ArrayLike, Block, Index, Rows, RowsLike, as_rows, at_once, entries, number
from .share import Share, digest, pose_share
from .show import in_short, shown


__all__ = [
    "Absent",
    "ArrayLike",
    "Beside",
    "Between",
    "Block",
    "Bounds",
    "CALLS",
    "Cost",
    "Dense",
    "Facts",
    "Function",
    "GridCost",
    "Holders",
    "Index",
    "KL",
    "L2",
    "METRICS",
    "Mask",
    "MetricName",
    "Moved",
    "Names",
    "Padded",
    "Penalty",
    "PointCloud",
    "Problem",
    "Rows",
    "RowsLike",
    "Share",
    "Spread",
    "Streamed",
    "TV",
    "There",
    "Unbalanced",
    "Unresolved",
    "as_cost",
    "as_rows",
    "asked",
    "at_once",
    "blocks",
    "broadcast",
    "checks",
    "digest",
    "entries",
    "filled",
    "flatten",
    "has_triton",
    "in_short",
    "make",
    "make_plain",
    "make_share",
    "masked",
    "mass_rtol",
    "needs",
    "number",
    "pose_share",
    "served",
    "shown",
    "survey",
    "within",
    "without_unserved",
]
