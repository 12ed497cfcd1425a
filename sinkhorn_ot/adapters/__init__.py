"""Codes and labels for the methods of the field: one per file, one call in a training loop."""

from .swav import swav_codes


__all__ = ["swav_codes"]
