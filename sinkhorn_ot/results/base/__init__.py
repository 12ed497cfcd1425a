"""What all results can do, whatever they tell."""

from .picking import picked
from .result import Result, from_state_dict


__all__ = ["Result", "from_state_dict", "picked"]
