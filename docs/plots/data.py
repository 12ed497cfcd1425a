"""The problems that the figures are drawn from: seeded, small, and described on the pages."""

import torch
from torch import Tensor


def histograms(n: int = 120) -> tuple[Tensor, Tensor, Tensor]:
    """Two histograms on a grid of [0, 1]: two bumps and three, with squared distances as cost."""
    x = torch.linspace(0, 1, n, dtype=torch.float64)

    def bump(at: float, width: float) -> Tensor:
        return (-((x - at) ** 2) / (2 * width**2)).exp()

    a = bump(0.25, 0.06) + 0.7 * bump(0.65, 0.1)
    b = 0.6 * bump(0.15, 0.04) + bump(0.5, 0.05) + 0.8 * bump(0.85, 0.05)
    return (x[:, None] - x[None, :]) ** 2, a / a.sum(), b / b.sum()


def points(n: int = 500, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Two clouds in the unit square with Dirichlet weights; squared distances scaled to [0, 1]."""
    random = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, n, 2, dtype=torch.float64, generator=random)
    # exponential variables, normalised, are uniform on the simplex
    a, b = (-torch.rand(2, n, dtype=torch.float64, generator=random).log()).unbind()
    C = torch.cdist(x, y) ** 2
    return C / C.max(), a / a.sum(), b / b.sum()


def rows(n: int = 20, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Two wavy rows of points, one above the other, and two points far from both in the second."""
    random = torch.Generator().manual_seed(seed)
    t = torch.rand(2, n, dtype=torch.float64, generator=random)
    noise = 0.05 * torch.randn(2, n, 2, dtype=torch.float64, generator=random)
    x = torch.stack([2.2 * t[0], 0.9 + 0.18 * (5 * t[0]).sin()], -1) + noise[0]
    y = torch.stack([0.5 + 2.2 * t[1] ** 0.7, 0.15 * (6 * t[1]).cos()], -1) + noise[1]
    y[-2:] = torch.tensor([[3.5, 1.1], [3.6, 0.8]], dtype=torch.float64)
    return x, y


def scores(n: int = 96, k: int = 12, seed: int = 1) -> Tensor:
    """Cosine scores of n samples against k prototypes, most of them close to a few prototypes."""
    random = torch.Generator().manual_seed(seed)
    prototypes = torch.nn.functional.normalize(torch.randn(k, 16, generator=random), dim=-1)
    popularity = torch.tensor([0.55**j for j in range(k)])
    home = torch.multinomial(popularity, n, replacement=True, generator=random)
    samples = prototypes[home.sort().values] + 0.22 * torch.randn(n, 16, generator=random)
    return torch.nn.functional.normalize(samples, dim=-1) @ prototypes.T
