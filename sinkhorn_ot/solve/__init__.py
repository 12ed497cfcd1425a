"""The call that solves, and what a compiler is shown of it."""

from .call import solve
from .checkpoints import Checkpoint
from .options import MAX_ITER


__all__ = ["Checkpoint", "MAX_ITER", "solve"]
