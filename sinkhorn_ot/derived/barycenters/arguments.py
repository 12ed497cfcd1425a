"""What a barycentre is asked of: histograms of one mass and weights that sum to one, checked."""

from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import Cost, broadcast, checks, mass_rtol


def as_histograms(histograms: Any, cost: Cost) -> Tensor:
    """Return histograms (..., k, n) that fit a cost, each with the mass of the first of its k.

    Raises:
        ValueError: If they have another shape, lie elsewhere, or differ in mass.
    """
    n = cost.shape[0]
    shape = f"(..., k, {n})"
    t = checks.tensor("histograms", histograms, whole=True, graph=True)
    checks.at_least_dims("histograms", t, 2, shape)
    checks.same_device("histograms", t, cost.device, "cost")
    if t.shape[-1] != n:
        raise ValueError(
            f"histograms must have shape {shape} to fit a cost of {cost.shape}, one in each row, "
            f"got {tuple(t.shape)}"
        )
    checks.weights("histograms", t.detach())
    rtol = mass_rtol(t, t)
    t = t.to(torch.float64) if cost.dtype == torch.float64 or t.device.type == "cpu" else t
    mass = t.detach().sum(-1, keepdim=True, dtype=torch.float64)
    ratio = mass[..., :1, :] / mass
    if bool((apart := (ratio - 1).abs() > rtol).any()):
        *at, k, _ = checks.first_index(apart)
        first, other = float(mass[(*at, 0, 0)]), float(mass[(*at, k, 0)])
        raise ValueError(
            f"histograms must have one mass, got {first:.9g} and {other:.9g} at index "
            f"{(*at, k)}: normalise them"
        )
    return t * ratio.to(t.dtype)


def as_weights(weights: Any, histograms: Tensor) -> Tensor:
    """Return the weights of histograms, (..., k), divided by their sum.

    Raises:
        ValueError: If they do not fit, or some are negative or all zero.
    """
    batch, k = histograms.shape[:-2], histograms.shape[-2]
    if weights is None:
        return histograms.new_full((*batch, k), 1 / k)
    t = checks.tensor("weights", weights, whole=True, graph=True)
    checks.at_least_dims("weights", t, 1, f"(..., {k})")
    checks.same_device("weights", t, histograms.device, "histograms")
    if t.shape[-1] != k:
        raise ValueError(
            f"weights must have one entry per histogram, {k}, got shape {tuple(t.shape)}"
        )
    checks.weights("weights", t.detach())
    if broadcast("weights", t.shape[:-1], "histograms", batch) != batch:
        raise ValueError(
            f"weights must have leading dimensions that fit those of histograms, {tuple(batch)}, "
            f"got {tuple(t.shape)}"
        )
    t = t.to(histograms.dtype)
    return (t / t.sum(-1, keepdim=True)).expand(*batch, k)
