"""Points on a line: exact transport by sorting."""

from .arrays import (
    Numbers,
    constants,
    counting,
    gaps,
    joined,
    like,
    ordered,
    put,
    summed,
    taken,
    tensor,
    where,
)
from .costs import Cost, Power, Product
from .points import line_cost, solved_on_line
from .staircase import Stairs, Sums, stairs


__all__ = [
    "Cost",
    "Numbers",
    "Power",
    "Product",
    "Stairs",
    "Sums",
    "constants",
    "counting",
    "gaps",
    "joined",
    "like",
    "line_cost",
    "ordered",
    "put",
    "solved_on_line",
    "stairs",
    "summed",
    "taken",
    "tensor",
    "where",
]
