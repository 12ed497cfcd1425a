"""The call that solves, and what a compiler is shown of it."""

from .call import MAX_ITER, ON_FAIL, solve


__all__ = ["MAX_ITER", "ON_FAIL", "solve"]
