"""Exact transport by proven engines, and exact counts of labels."""

from .balanced import BalancedLabels, balanced_labels
from .linear_program import solve_exact


__all__ = [
    "BalancedLabels",
    "balanced_labels",
    "solve_exact",
]
