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
    "ordered",
    "put",
    "stairs",
    "summed",
    "taken",
    "tensor",
    "where",
]
