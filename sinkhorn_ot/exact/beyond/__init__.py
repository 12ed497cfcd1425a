"""Exact transport beyond the matrix: pairs on demand, proved by a look at all of them."""

from .answer import solved_on_demand
from .budget import Budget
from .choice import on_demand


__all__ = ["Budget", "on_demand", "solved_on_demand"]
