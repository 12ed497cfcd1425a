"""What all results can do, whatever they tell."""

from .picking import picked
from .result import Result, from_state_dict, plot
from .sketch import Sketch, of_matrix, of_plan, of_transport


__all__ = [
    "Result",
    "Sketch",
    "from_state_dict",
    "of_matrix",
    "of_plan",
    "of_transport",
    "picked",
    "plot",
]
