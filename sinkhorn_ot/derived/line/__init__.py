"""Transport on a line or a circle, by sorting, and over lines through space."""

from .call import solve_1d
from .result import LineTransport
from .sliced import SlicedDistance, sliced_distance


__all__ = [
    "LineTransport",
    "SlicedDistance",
    "sliced_distance",
    "solve_1d",
]
