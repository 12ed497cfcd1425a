"""Small problems on a CPU, each solved whole."""

from .whole import solve_small


__all__ = ["solve_small"]
