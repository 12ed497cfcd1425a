"""Codes and labels for the methods of the field: one per file, one call in a training loop."""

from .sela import SelaLabels, sela_labels
from .swav import swav_codes


__all__ = ["SelaLabels", "sela_labels", "swav_codes"]
