"""Codes of one batch that fits a cache, in NumPy: there calls cost more than arithmetic.

The steps are those of `softmaxes.by_products`, for one problem all of whose samples count. Where
the weight of a row lies where exponents have lost digits, all is done again in float64; what loses
them even there, or holds no number, is left to the others.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import HELD, Asked, at_least_single
from sinkhorn_ot.adapters.softmaxes import FAINT, FLOOR, TILE


Floats = npt.NDArray[np.floating]

# terms of a sum of products in single precision, of samples and of prototypes
_SAMPLES, _PROTOTYPES = 1024, 4096


def by_arrays(p: Asked, n_iter: int) -> Tensor | None:
    """Return codes, (..., N - start, K); None for what is not one plain problem of few numbers."""
    *batch, N, K = p.S.shape
    plain = p.ranks.alone and p.mask is None and 0 < N * K == p.S.numel() <= TILE
    if not plain or N > _SAMPLES or K > _PROTOTYPES:
        return None
    kind = at_least_single(p.S.dtype)
    for dtype in dict.fromkeys((kind, torch.float64)):
        Q = _codes(p.S.to(dtype).numpy().reshape(N, K), 1.0 / p.eps, n_iter, p.start)
        if Q is not None:
            return torch.from_numpy(Q).to(kind).reshape(*batch, N - p.start, K)
    return None


def _codes(S: Floats, inv: float, n_iter: int, start: int) -> Floats | None:
    """Return codes from row `start` on, (N - start, K); None if digits would be lost."""
    kind = torch.float64 if S.dtype == np.float64 else torch.float32
    peak = S.max(0)
    with np.errstate(all="ignore"):
        E: Floats = S - peak
        E *= inv
        low = float(E.min())
        if not (low > -HELD and float(np.abs(peak).max()) * inv < HELD):
            return None
    if low < FLOOR[kind]:
        np.maximum(E, FLOOR[kind], out=E)
    np.exp(E, out=E)
    faint = math.exp(FAINT[kind])
    # what prototypes hold where every sample weighs one
    held = np.ones(len(E), E.dtype) @ E
    for _ in range(n_iter - 1):
        weight = _weights(E, held, faint)
        if weight is None:
            return None
        held = weight @ E
    E = E[start:]
    weight = _weights(E, held, faint)
    if weight is None:
        return None
    E *= held.min() / held
    E *= weight[:, None]
    return E


def _weights(E: Floats, held: Floats, faint: float) -> Floats | None:
    """Return what scales samples to one, once prototypes weigh one over what they held."""
    alpha = held.min() / held
    mass = E @ alpha
    if len(mass) and mass.min() < faint * alpha.sum():
        return None
    weight: Floats = 1 / mass
    return weight
