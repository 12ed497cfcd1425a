"""Which problems are sooner solved, or only solved, by pairs on demand."""

from sinkhorn_ot.problem import Problem


# pairs from which on, and points of the shorter side: where that is short, most pairs are wanted
MANY, SHORT = 16_000_000, 1000


def on_demand(p: Problem) -> bool:
    """Say whether pairs on demand are predicted to be quicker than the whole matrix."""
    _, n, m = p.shape
    return p.exact and n * m >= MANY and min(n, m) >= SHORT
