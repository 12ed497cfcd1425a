"""Random sizes, costs, weights and forbidden pairs, plain and nasty."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


Array = np.ndarray[Any, np.dtype[Any]]
Random = np.random.Generator

HALF = (torch.float16, torch.bfloat16)
DTYPES = (torch.float64, torch.float32, *HALF)
LARGEST = 60


def chance(rng: Random, share: float) -> bool:
    """Return True as often as `share` says."""
    return bool(rng.random() < share)


def power(rng: Random, low: float, high: float) -> float:
    """Return ten to a power between two."""
    return float(10 ** rng.uniform(low, high))


def size(rng: Random, largest: int = LARGEST) -> int:
    """Return a number of points: small ones are as likely as large ones."""
    return int(largest ** rng.random())


def pick(rng: Random, *choices: Any, p: tuple[float, ...] | None = None) -> Any:
    """Return one of the choices as it is."""
    return choices[int(rng.choice(len(choices), p=p))]


def costs(rng: Random, batch: tuple[int, ...], n: int, m: int) -> Array:
    """Return costs of spread about one, (..., n, m)."""
    kind = int(rng.integers(9))
    C = rng.random((*batch, n, m))
    if kind == 1:
        C = rng.integers(0, 4, C.shape) / 3.0
    elif kind == 2:
        x, y = rng.random((2, *batch, max(n, m), 2))
        C = np.square(x[..., :n, None, :] - y[..., None, :m, :]).sum(-1)
    elif kind == 3:
        C = np.full_like(C, pick(rng, 0.0, 0.7))
    elif kind == 4:
        C = rng.random((*batch, n, 1)) + rng.random((*batch, 1, m))
    elif kind == 5:
        C = 0.5 + 0.5 * C
        C[..., np.arange(n), rng.permutation(np.arange(n) % m)] = 0
    elif kind == 6:
        C = 10 ** (-12 * C)
    elif kind == 7:
        # the same points again and again
        C = C[..., rng.integers(0, n, n), :][..., rng.integers(0, m, m)]
    elif kind == 8:
        C = np.minimum(rng.pareto(1.0, C.shape), 1e4)
    return C


def placed(rng: Random, C: Array) -> Array:
    """Return costs in other units, or far from zero."""
    if chance(rng, 0.25):
        C = C * power(rng, -6, 6)
    if chance(rng, 0.3):
        C = C + rng.choice([-1, 1]) * power(rng, -2, 7) * max(float(np.ptp(C)), 1e-300)
    return C


def weights(rng: Random, batch: tuple[int, ...], n: int, mass: Any = 1.0) -> Array:
    """Return weights of this mass, (..., n), plain or with zeros, tiny and heavy ones."""
    kind = int(rng.integers(7))
    w = np.ones((*batch, n))
    if kind == 1:
        w = rng.dirichlet(np.ones(n), batch)
    elif kind == 2:
        w = np.maximum(rng.dirichlet(np.full(n, 0.1), batch), 1e-250)
    elif kind == 3:
        w = rng.random(w.shape) * (rng.random(w.shape) < 0.6)
    elif kind == 4:
        w = 1e-9 * rng.random(w.shape)
        w[..., 0] += 1
    elif kind == 5:
        w = 10 ** -(12 * rng.random(w.shape))
    elif kind == 6:
        w = rng.integers(0, 3, w.shape).astype(float)
    # some point has weight
    w[..., int(rng.integers(n))] += w.sum(-1) == 0
    return w / w.sum(-1, keepdims=True) * mass


def allowed(rng: Random, n: int, m: int) -> Array:
    """Return which pairs are, (n, m): as a rule every point has one."""
    ok = rng.random((n, m)) < pick(rng, 0.15, 0.4, 0.8)
    if chance(rng, 0.3):
        # blocks, which only their own masses can fill
        parts = int(rng.integers(2, 4))
        ok = rng.integers(0, parts, n)[:, None] == rng.integers(0, parts, m)
    if chance(rng, 0.9):
        ok[np.arange(n), rng.integers(0, m, n)] = True
        ok[rng.integers(0, n, m), np.arange(m)] = True
    return ok


def carried(rng: Random, ok: Array) -> tuple[Array, Array]:
    """Return weights (n,) and (m,) that allowed pairs can carry, for a plan makes them."""
    P = ok * 10 ** -(pick(rng, 0, 2, 8) * rng.random(ok.shape))
    if chance(rng, 0.3):
        P *= rng.random(ok.shape) < 0.3
    if not P.any():
        P = np.ones(ok.shape)
    P /= P.sum()
    return P.sum(1), P.sum(0)


def whole(rng: Random, n: int, m: int) -> tuple[Array, Array]:
    """Return weights (n,) and (m,) that are small multiples of one number: sums of some tie."""
    total = int(rng.integers(1, 3 * (n + m)))
    a, b = (rng.multinomial(total, np.full(k, 1 / k)) / total for k in (n, m))
    return a, b


def handed(rng: Random, x: Array, dtype: torch.dtype) -> Any:
    """Return numbers as one of the things that are taken: a tensor, a view, or an array."""
    t = torch.from_numpy(np.ascontiguousarray(x)).to(dtype)
    form = int(rng.integers(5))
    if form == 1 and dtype != torch.bfloat16:
        return t.numpy()
    if form == 2 and t.ndim > 1:
        return t.mT.contiguous().mT
    if form == 3:
        wide = torch.zeros((*t.shape, 2), dtype=dtype)
        wide[..., 0] = t
        return wide[..., 0]
    return t


def single(x: Any) -> bool:
    """Say whether numbers were rounded to less than float64."""
    return torch.as_tensor(x).dtype != torch.float64


def truth(x: Any) -> Array:
    """Return what is handed over in float64."""
    return (x if isinstance(x, Tensor) else torch.as_tensor(x)).to(torch.float64).numpy().copy()
