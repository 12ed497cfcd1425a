"""Random problems for calls of POT."""

import numpy as np


def problem(n=12, m=9, seed=0, targets=None, scale=1.0):
    """Return weights (n,), (m,) or (m, targets), and costs (n, m) of points in the plane."""
    g = np.random.default_rng(seed)
    x, y = g.random((n, 2)), g.random((m, 2))
    a = g.random(n) + 0.1
    b = g.random(m if targets is None else (m, targets)) + 0.1
    M = scale * ((x[:, None] - y) ** 2).sum(-1)
    return a / a.sum(), b / b.sum(0), M


def clouds(n=12, m=9, seed=0):
    """Return points (n, 2) and (m, 2)."""
    g = np.random.default_rng(seed)
    return g.random((n, 2)), g.random((m, 2)) + 0.2
