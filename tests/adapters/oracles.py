"""What the methods compute, written from their formulas: dense, float64, in log domain."""

import math

import torch
from torch import Tensor


def total_variation(codes: Tensor, oracle: Tensor) -> float:
    """Return the largest total variation of a code from the oracle's."""
    return float((codes.double() - oracle).abs().sum(-1).max() / 2)


def swav_codes(scores: Tensor, eps: float, n_iter: int, mask: Tensor | None = None) -> Tensor:
    """Return SwAV's codes, (..., N, K).

    From g = 0, alternates f_k = -LSE_i(S_ik / eps + g_i) and g_i = -LSE_k(S_ik / eps + f_k). The
    samples that a mask (N,) leaves out are left out, and have codes of zeros.
    """
    if mask is not None:
        Q = torch.zeros(scores.shape, dtype=torch.float64)
        Q[..., mask, :] = swav_codes(scores[..., mask, :], eps, n_iter)
        return Q
    S = scores.double() / eps
    f, g = torch.zeros_like(S[..., :1, :]), torch.zeros_like(S[..., :1])
    for _ in range(n_iter):
        f = -torch.logsumexp(S + g, -2, keepdim=True)
        g = -torch.logsumexp(S + f, -1, keepdim=True)
    return (S + f + g).exp()


def codes_in_shares(scores: Tensor, eps: float, n_iter: int, shares: Tensor) -> Tensor:
    """Return SwAV's codes where prototypes are scaled to shares (K,) of any sum, (N, K).

    From g = 0, alternates f_k = log r_k - LSE_i(S_ik / eps + g_i) and
    g_i = -LSE_k(S_ik / eps + f_k).
    """
    S, log_r = scores.double() / eps, shares.double().log()
    g = torch.zeros_like(S[:, :1])
    for _ in range(n_iter):
        f = log_r - torch.logsumexp(S + g, 0)
        g = -torch.logsumexp(S + f, 1, keepdim=True)
    return (S + f + g).exp()


def swapped_prediction(
    scores: list[Tensor], codes: list[Tensor], tau: float, assign: tuple[int, ...]
) -> float:
    """Return SwAV's loss: the mean over assign crops t and other crops s of
    -mean_i sum_k Q_t,ik log softmax(S_s,i / tau)_k."""
    total = 0.0
    for t, Q in zip(assign, codes, strict=True):
        others = [s for s in range(len(scores)) if s != t]
        for s in others:
            for q, x in zip(Q.double(), scores[s].double(), strict=True):
                p = (x / tau - (x / tau).max()).exp()
                total -= float(q @ (p / p.sum()).log()) / (len(assign) * len(others) * len(Q))
    return total


def msn(scores: Tensor, tau: float, sharpening: float, n_iter: int) -> Tensor:
    """Return MSN's targets: SwAV's iterations at eps 1 from log(p^(1/T) / sum p^(1/T))."""
    p = torch.log_softmax(scores.double() / tau, -1)
    sharp = p / sharpening - torch.logsumexp(p / sharpening, -1, keepdim=True)
    return swav_codes(sharp, 1.0, n_iter)


def router(logits: Tensor, n_iter: int | None, tol: float = 1e-4) -> tuple[Tensor, int]:
    """Return a router's log plan (T, E) and its iterations.

    From f = 0, alternates g_i = -log T - LSE_k(l_ik + f_k) and f_k = -log E - LSE_i(l_ik + g_i),
    n_iter times or until the mean of |exp f - exp f before| is at most `tol`.
    """
    L = logits.double()
    T, E = L.shape
    f, g, taken, change = L.new_zeros(E), L.new_zeros(T, 1), 0, math.inf
    while taken < n_iter if n_iter is not None else change > tol:
        g = -math.log(T) - torch.logsumexp(L + f, 1, keepdim=True)
        before, f = f, -math.log(E) - torch.logsumexp(L + g, 0)
        change = float((f.exp() - before.exp()).abs().mean())
        taken += 1
    return L + f + g, taken


def sela(log_probs: Tensor, lamb: float, marginal: Tensor, tol: float = 1e-11) -> Tensor:
    """Return SeLa's potentials, whose labels are argmax_k(lamb log p_ik + potential_k).

    Alternates g_i = -log N - LSE_k(lamb log p_ik + f_k) and
    f_k = log r_k - LSE_i(lamb log p_ik + g_i) until the masses of the clusters are within `tol` of
    the marginal, in sum, in every head.
    """
    S, log_r = log_probs.double() * lamb, marginal.double().log()[..., None, :]
    f = log_r.expand(*S.shape[:-2], 1, S.shape[-1])
    for _ in range(200_000):
        g = -math.log(S.shape[-2]) - torch.logsumexp(S + f, -1, keepdim=True)
        log_mass = torch.logsumexp(S + f + g, -2, keepdim=True)
        if float((log_mass.exp() - log_r.exp()).abs().sum(-1).max()) <= tol:
            return f[..., 0, :]
        # a cluster that may hold nothing stays closed
        f = torch.where(log_r > -math.inf, f + log_r - log_mass, -math.inf)
    raise AssertionError("the oracle did not converge")


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> float:
    """Return the mean over all 2N samples of -log exp(s_ip / T) / sum_{j != i} exp(s_ij / T)."""
    z = torch.cat([z1, z2]).double()
    z = z / z.norm(dim=1, keepdim=True)
    total, n = 0.0, len(z)
    for i in range(n):
        s = [float(z[i] @ z[j]) / temperature for j in range(n)]
        others = sum(math.exp(s[j]) for j in range(n) if j != i)
        total -= s[(i + n // 2) % n] - math.log(others)
    return total / n


def nearest(x: Tensor, c: Tensor, metric: str) -> Tensor:
    """Return the distance of every sample to every centroid, (N, K), by its definition."""
    x, c = x.double(), c.double()
    if metric == "sqeuclidean":
        return (x[:, None] - c).square().sum(-1)
    return -torch.cosine_similarity(x[:, None], c, dim=-1)


def at_least(S: Tensor, low: float, n_iter: int = 20_000) -> Tensor:
    """Return transport with free samples' labels but a lower bound on every column, (N, K).

    Alternates f_k = max(0, log low - LSE_i(S_ik + g_i)) and g_i = -LSE_k(S_ik + f_k).
    """
    f = torch.zeros_like(S[:1])
    for _ in range(n_iter):
        g = -torch.logsumexp(S + f, 1, keepdim=True)
        f = (math.log(low) - torch.logsumexp(S + g, 0, keepdim=True)).clamp(min=0)
    return torch.softmax(S + f, 1)
