"""Shares of labels that are not all the same, and who gets which."""

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import sound
from sinkhorn_ot.problem import checks


def gaussian_marginal(K: int, sigma: float = 0.1) -> Tensor:
    """Return shares whose sizes follow a Gaussian, largest first, (K,), float64.

    They are its K quantiles, not a sample: the same at every relabelling.

    Args:
        K: Number of labels.
        sigma: Standard deviation of the sizes, relative to their mean.

    Source: Y. M. Asano, M. Patrick, C. Rupprecht, A. Vedaldi, Labelling unlabelled videos from
    scratch with multi-modal self-supervision, NeurIPS 2020.
    """
    K, sigma = checks.count("K", K), checks.positive("sigma", sigma)
    level = (torch.arange(K, 0, -1, dtype=torch.float64) - 0.5) / K
    # a wide Gaussian has negative sizes, a label has not
    deviation: Tensor = torch.special.ndtri(level)
    size = (1.0 + sigma * deviation).clamp_(min=1e-3)
    return size / size.sum()


def zipf_marginal(K: int, s: float = 1.0) -> Tensor:
    """Return shares that fall as rank to the power -s, largest first, (K,), float64."""
    K, s = checks.count("K", K), checks.positive("s", s)
    size = torch.arange(1, K + 1, dtype=torch.float64).pow(-s)
    return size / size.sum()


def whole_counts(marginal: Tensor, N: Tensor) -> Tensor:
    """Return shares of N samples as whole numbers, (..., K), by largest remainders.

    Args:
        marginal: Shares, (..., K), that sum to one.
        N: Samples, (...).
    """
    exact = marginal * N[..., None]
    counts = exact.floor()
    left = (N[..., None] - counts.sum(-1, keepdim=True)).round()
    rank = (exact - counts).argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return (counts + (rank < left)).to(torch.int64)


def align_marginal(marginal: Tensor, sizes: Tensor) -> Tensor:
    """Return the shares in the order of cluster sizes: the largest share to the largest cluster.

    Args:
        marginal: Shares, (..., K).
        sizes: Current sizes of the clusters, (..., K).

    Raises:
        ValueError: If they do not fit.
    """
    marginal, sizes = (
        checks.at_least_dims(name, sound(name, checks.tensor(name, x, whole=True)), 1, "(..., K)")
        for name, x in (("marginal", marginal), ("sizes", sizes))
    )
    checks.same_device("sizes", sizes, checks.present("marginal", marginal).device, "marginal")
    try:
        shape = np.broadcast_shapes(marginal.shape, sizes.shape)
    except ValueError:
        raise ValueError(
            f"sizes must have a shape that fits that of marginal, {tuple(marginal.shape)}, "
            f"got {tuple(sizes.shape)}"
        ) from None
    order = sizes.expand(shape).argsort(dim=-1, descending=True, stable=True)
    ranked = marginal.expand(shape).sort(dim=-1, descending=True).values
    return torch.empty_like(ranked).scatter_(-1, order, ranked)
