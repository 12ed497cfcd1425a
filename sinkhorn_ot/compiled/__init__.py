"""Fixed sweeps in graphs: what `torch.compile` and `torch.export` are shown of a solve."""

from .graph import graphed


__all__ = ["graphed"]
