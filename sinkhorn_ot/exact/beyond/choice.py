"""Which problems are sooner solved, or only solved, by pairs on demand."""

from sinkhorn_ot.problem import Problem


# pairs from which on
MANY = 16_000_000


def on_demand(p: Problem) -> bool:
    """Say whether pairs on demand are predicted to be quicker than the whole matrix."""
    _, n, m = p.shape
    return p.exact and n * m >= MANY
