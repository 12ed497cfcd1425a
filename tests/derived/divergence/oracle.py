"""The Sinkhorn divergence by its definition: dense, in the log domain, float64, plain steps."""

import math

import torch


def costs(x, y, metric):
    """Return what points cost, (n, m)."""
    if metric == "dot":
        return -x @ y.mT
    if metric == "cosine":
        x, y = (t / t.norm(dim=-1, keepdim=True) for t in (x, y))
        return 1 - x @ y.mT
    apart = (x[:, None] - y[None]).norm(1.0 if metric == "manhattan" else 2.0, dim=-1)
    return apart.square() if metric == "sqeuclidean" else apart


def potentials(C, a, b, reg, rho=math.inf, steps=20_000):
    """Return f and g."""
    f, g, kappa = torch.zeros_like(a), torch.zeros_like(b), 1 / (1 + reg / rho)
    for _ in range(steps):
        f = -kappa * reg * torch.logsumexp(b.log() + (g - C) / reg, 1)
        new = -kappa * reg * torch.logsumexp(a.log()[:, None] + (f[:, None] - C) / reg, 0)
        if (new - g).abs().max() < 1e-15:
            break
        g = new
    return f, new


def value(C, a, b, reg, rho=math.inf):
    """Return the optimum, <P, C> + reg KL(P | a b^T) + penalties, at the plan of the potentials."""
    f, g = potentials(C, a, b, reg, rho)
    P = a[:, None] * b * ((f[:, None] + g - C) / reg).exp()
    found = (P * C).sum() + reg * _kl(P, a[:, None] * b)
    if rho < math.inf:
        found = found + rho * (_kl(P.sum(1), a) + _kl(P.sum(0), b))
    return found


def divergence(x, y, a, b, reg, metric="sqeuclidean", rho=math.inf):
    """Return OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2 + reg / 2 (m_a - m_b)^2."""
    pairs = (x, y, a, b), (x, x, a, a), (y, y, b, b)
    found = [value(costs(s, t, metric), u, v, reg, rho) for s, t, u, v in pairs]
    return found[0] - (found[1] + found[2]) / 2 + reg / 2 * (a.sum() - b.sum()) ** 2


def _kl(p, q):
    return (torch.xlogy(p, p) - torch.xlogy(p, q) - p + q).sum()
