"""Labels in exact counts, with a bound that proves how good they are."""

from .labels import BalancedLabels, balanced_labels


__all__ = [
    "BalancedLabels",
    "balanced_labels",
]
