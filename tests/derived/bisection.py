"""The published method, in plain NumPy: alternate scaling at lambda, bisection on lambda."""

import numpy as np

import sinkhorn_ot as so


def log_sum(t: np.ndarray, axis: int) -> np.ndarray:
    peak = t.max(axis=axis, keepdims=True)
    return np.squeeze(peak, axis) + np.log(np.exp(t - peak).sum(axis=axis))


def at_lambda(M, r, c, lam, g):
    """Return the plan diag(u) exp(-lam M) diag(v) with marginals r and c, and log v."""
    f = np.zeros_like(r)
    for _ in range(200_000):
        f = np.log(r) - log_sum(g[None, :] - lam * M, 1)
        P = np.exp(f[:, None] + g[None, :] - lam * M)
        if np.abs(P.sum(0) - c).sum() < 1e-13:
            break
        g = np.log(c) - log_sum(f[:, None] - lam * M, 0)
    return P, g


def information(P, r, c):
    """Return h(r) + h(c) - h(P)."""
    used = P > 0
    return float((P[used] * np.log(P[used] / np.outer(r, c)[used])).sum())


def published(M, r, c, alpha):
    """Return d_{M, alpha} by bisection on lambda, and how far its plan is from alpha."""
    low, high, g = 0.0, None, np.zeros_like(c)
    lam = 1.0
    for _ in range(200):
        P, g = at_lambda(M, r, c, lam, g)
        off = information(P, r, c) - alpha
        if abs(off) < 1e-13:
            break
        low, high = (lam, high) if off < 0 else (low, lam)
        lam = 2 * lam if high is None else (low + high) / 2
        if high is not None and high - low <= 1e-15 * high:
            break
    return float((P * np.where(P > 0, M, 0.0)).sum()), off


def random(seed: int, share: float | None = None):
    """Draw a problem of any kind and size, and an alpha below where its path ends."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 18, 2)
    x, y = rng.random((n, 2)), rng.random((m, 2))
    square = ((x[:, None] - y[None]) ** 2).sum(-1)
    C = (rng.random((n, m)), square, np.sqrt(square), rng.integers(0, 5, (n, m)) / 4.0)[seed % 4]
    a, b = (rng.dirichlet(np.ones(k)) + 1e-3 for k in (n, m))
    a, b = a / a.sum(), b / b.sum()
    # where costs are tied, the path ends before the plan of an engine, and early
    tied = seed % 4 == 3
    P = at_lambda(C, a, b, 200.0, np.zeros(m))[0] if tied else so.solve_exact(C, a, b).plan.numpy()
    most = information(P, a, b)
    share = rng.choice([0.003, 0.03, 0.2, 0.5, 0.75]) if share is None else share
    return C, a, b, share * most
