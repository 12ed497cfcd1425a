"""What the package is for, on real digits: `python -m sinkhorn_ot demo`."""

from .show import main


__all__ = ["main"]
