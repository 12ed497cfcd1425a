"""Problems that people pose, by name: each a function of its size, always from the same seed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Case:
    """One problem, or a batch that shares its cost; costs lie in [0, 1]."""

    name: str
    C: Tensor
    a: Tensor
    b: Tensor


def dirichlet(n: int, seed: int) -> Tensor:
    """Return weights drawn from the flat Dirichlet distribution, shape (n,)."""
    return torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(n)))


def points(n: int, dtype: torch.dtype = torch.float64) -> Case:
    """Squared distances between two uniform clouds in the unit square, Dirichlet weights."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, n, 2, generator=rng, dtype=torch.float64)
    C = torch.cdist(x, y).square()
    return Case("points", (C / C.max()).to(dtype), dirichlet(n, 1), dirichlet(n, 2))


def random_costs(n: int, dtype: torch.dtype = torch.float64) -> Case:
    """Independent uniform costs, Dirichlet weights."""
    rng = torch.Generator().manual_seed(0)
    C = torch.rand(n, n, generator=rng, dtype=torch.float64)
    return Case("random", C.to(dtype), dirichlet(n, 1), dirichlet(n, 2))


def digit_histograms(count: int) -> Case:
    """Pairs of scikit-learn's 8x8 digits as histograms on the pixel grid, zero pixels in place."""
    from sklearn.datasets import load_digits

    X, _ = load_digits(return_X_y=True)
    X = X / X.sum(1, keepdims=True)
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(X), (2, count))
    grid = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).double()
    C = torch.cdist(grid, grid).square()
    return Case("digits", C / C.max(), torch.from_numpy(X[first]), torch.from_numpy(X[second]))


DENSE = {"points": points, "random": random_costs}
