"""Scikit-learn's digits, views of each, and a small network that looks at them."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Digits:
    """Images of handwritten digits: 1437 to learn from, or the other 360 of the data set.

    Attributes:
        images: Grey values in [0, 1], shape (N, 1, 8, 8).
        labels: Which digit each one is, (N,). Only looked at to judge, never to train.
    """

    images: Tensor
    labels: Tensor

    @property
    def pixels(self) -> Tensor:
        """Images as vectors, (N, 64)."""
        return self.images.flatten(1)


def load(size: int | None = None) -> Digits:
    """Return the training digits, or the first `size` of them."""
    return _digits(0, size)


def held_out() -> Digits:
    """Return the digits that no training sees."""
    return _digits(1, None)


def _digits(part: int, size: int | None) -> Digits:
    x, y = load_digits(return_X_y=True)
    split = train_test_split(x, y, test_size=360, stratify=y, random_state=0)
    x, y = split[part][:size], split[part + 2][:size]
    images = torch.from_numpy(np.asarray(x, np.float32) / 16).view(-1, 1, 8, 8)
    return Digits(images, torch.from_numpy(np.asarray(y)).long())


def view(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images turned, scaled, sheared, moved, brightened and noised at random."""
    n = len(images)

    def spread(width: float) -> Tensor:
        return (2 * torch.rand(n, generator=generator) - 1) * width

    angle, scale, shear = spread(math.radians(20)), 1 + spread(0.15), spread(0.15)
    top = torch.stack([scale * angle.cos(), -scale * angle.sin() + shear, spread(0.25)], 1)
    bottom = torch.stack([scale * angle.sin(), scale * angle.cos(), spread(0.25)], 1)
    grid = F.affine_grid(torch.stack([top, bottom], 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False)
    noise = 0.05 * torch.randn(moved.shape, generator=generator)
    return (moved * (1 + spread(0.3)).view(-1, 1, 1, 1) + noise).clamp(0, 1.3)


class Backbone(nn.Sequential):
    """Three convolutions: (N, 1, 8, 8) to features (N, 256)."""

    width = 256

    def __init__(self) -> None:
        super().__init__(
            *self._layer(1, 16),
            *self._layer(16, 32),
            nn.MaxPool2d(2),
            *self._layer(32, 64),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )

    @staticmethod
    def _layer(into: int, out: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()


@torch.no_grad()
def features(backbone: nn.Module, images: Tensor) -> Tensor:
    """Return what the network sees in clean images, unit vectors (N, d)."""
    backbone.eval()
    seen: Tensor = F.normalize(backbone(images), dim=1)
    backbone.train()
    return seen


def k_means(x: Tensor, clusters: int = 10) -> Tensor:
    """Return the cluster of each row of x, (N,)."""
    # the stubs know n_init as a word only
    means = KMeans(clusters, n_init=10, random_state=0)  # pyright: ignore[reportArgumentType]
    found = means.fit(x.numpy())
    return torch.from_numpy(found.labels_).long()
