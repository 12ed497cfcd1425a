"""Scores as they are in training, and what may be wrong with them."""

import torch
from torch import Tensor


def cosines(N: int, K: int, seed: int = 0, d: int = 16) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    z, c = torch.randn(N, d, generator=g), torch.randn(K, d, generator=g)
    return torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(c).t()


def half_of(N: int) -> Tensor:
    return torch.rand(N, generator=torch.Generator().manual_seed(2)) < 0.5


def with_entry(value: float) -> Tensor:
    S = cosines(8, 5)
    S[2, 3] = value
    return S
