"""What the methods compute, written from their formulas: dense, float64, in log domain."""

import math

import torch
from torch import Tensor


def swav_codes(scores: Tensor, eps: float, n_iter: int) -> Tensor:
    """Return SwAV's codes, (..., N, K).

    From g = 0, alternates f_k = -LSE_i(S_ik / eps + g_i) and g_i = -LSE_k(S_ik / eps + f_k).
    """
    S = scores.double() / eps
    g = torch.zeros_like(S[..., :1])
    for _ in range(n_iter):
        f = -torch.logsumexp(S + g, -2, keepdim=True)
        g = -torch.logsumexp(S + f, -1, keepdim=True)
    return (S + f + g).exp()


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
