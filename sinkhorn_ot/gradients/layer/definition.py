"""What the layer means, in plain differentiable PyTorch: tangents and second derivatives are its.

With `L = scale * x` and `f = g = 0` at first, a step of the rows sets `f_i = -log sum_j b_j
exp(L_ij + g_j)`, without `b` in the very first, and one of the columns `g_j = -log sum_i a_i
exp(L_ij + f_i)`. The matrix is `a_i b_j exp(L_ij + f_i + g_j)`. So weights of zero are only ever
multiplied, and have derivatives. A row or column without any mass has -inf, and stays empty.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks, shown


# what has no weight may be larger than what has, by as much in its logarithm
MOST = 40.0


@shown
class How(NamedTuple):
    """What is asked beside tensors.

    Attributes:
        scale: What the logits are multiplied by.
        n_iter: Steps of the rows, each with one of the columns after it; at least one.
        log: Whether the log of the matrix is returned.
    """

    scale: float
    n_iter: int
    log: bool


def working(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which matrices of this dtype are computed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def given(x: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return weights (1, n) and (1, m): without any, one for each row and n / m for each column."""
    if a is not None and b is not None:
        return a, b
    n, m = x.shape[1:]
    new = working(x.dtype), x.device
    return checks.full((1, n), 1.0, *new), checks.full((1, m), n / m, *new)


def matrices(x: Tensor, a: Tensor, b: Tensor, *how: Any) -> Tensor:
    """Return the matrices (B, n, m) of logits x (B, n, m) for weights (B or 1, n) and (B or 1, m).

    Args:
        x: Logits.
        a: Sums of the rows, in the dtype of the computation.
        b: Sums of the columns.
        *how: The fields of `How`.
    """
    asked = How(*how)
    L, a, b, steps = _steps(x, a, b, asked)
    f, g = steps[-1]
    # what is infinite has no derivative, and must not make one of another
    live = _live(L, f, g) & (a > 0) & (b > 0)
    if not asked.log:
        return (a * b * _density(torch.where(_live(L, f, g), L + f + g, -math.inf), a * b)).to(
            x.dtype
        )
    z = torch.where(live, L, 0.0) + torch.where(f > -math.inf, f, 0.0) + _log(a)
    z = z + torch.where(g > -math.inf, g, 0.0) + _log(b)
    return torch.where(live, z, -math.inf).to(x.dtype)


def tangents(
    x: Tensor, a: Tensor, b: Tensor, dx: Tensor, da: Tensor, db: Tensor, *how: Any
) -> Tensor:
    """Return how fast the matrices change where their arguments change as fast as told."""
    asked = How(*how)
    L, a, b, steps = _steps(x, a, b, asked)
    dL = torch.where(L.isneginf(), 0.0, dx.to(L.dtype) * asked.scale)
    da, db = da[:, :, None], db[:, None, :]
    g, dg = torch.zeros_like(b), torch.zeros_like(b)
    weight, moved = torch.ones_like(b), torch.zeros_like(b)
    f = df = torch.zeros_like(a)
    for f, after in steps:
        df = -(_density(L + f + g, weight) * (weight * (dL + dg) + moved)).sum(2, keepdim=True)
        dg = -(_density(L + f + after, a) * (a * (dL + df) + da)).sum(1, keepdim=True)
        g, weight, moved = after, b, db
    rate = dL + df + dg
    if asked.log:
        rate = rate + torch.where(a > 0, da / a, 0.0) + torch.where(b > 0, db / b, 0.0)
        live = _live(L, f, g) & (a > 0) & (b > 0)
        return torch.where(live, rate, 0.0).to(x.dtype)
    return (_density(L + f + g, a * b) * (a * b * rate + a * db + b * da)).to(x.dtype)


def _steps(
    x: Tensor, a: Tensor, b: Tensor, asked: How
) -> tuple[Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Return what is exponentiated, weights that broadcast with it, and f and g of each step."""
    L = x.to(a.dtype) * asked.scale
    a, b = a[:, :, None], b[:, None, :]
    g, weight = torch.zeros_like(b), torch.ones_like(b)
    steps = []
    for _ in range(asked.n_iter):
        f = _answer(L + g, weight, 2)
        g = _answer(L + f, a, 1)
        weight = b
        steps.append((f, g))
    return L, a, b, steps


def _answer(z: Tensor, weight: Tensor, axis: int) -> Tensor:
    """Return -log sum weight * exp(z) along an axis, -inf for a sum of nothing."""
    heavy = torch.where(weight > 0, z, -math.inf)
    top = heavy.detach().amax(axis, keepdim=True)
    top = torch.where(top > -math.inf, top, 0.0)
    terms = _density(torch.where(z > -math.inf, z - top, -math.inf), weight)
    total = (weight * terms).sum(axis, keepdim=True)
    some = total > 0
    return torch.where(some, -top - torch.where(some, total, 1.0).log(), -math.inf)


def _density(z: Tensor, weight: Tensor) -> Tensor:
    """Return exp(z), which is a number even where no weight holds it down."""
    return torch.where(weight > 0, z, z.clamp(max=MOST)).exp()


def _log(weight: Tensor) -> Tensor:
    return torch.where(weight > 0, weight, 1.0).log()


def _live(L: Tensor, f: Tensor, g: Tensor) -> Tensor:
    return ~L.isneginf() & (f > -math.inf) & (g > -math.inf)
