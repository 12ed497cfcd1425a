"""Barycentres: what many digits have in common, and what lies between two shapes."""

import functools

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from style import Theme
from torch import Tensor

import sinkhorn_ot as so


SIDE, SHAPE = 28, 64
DIGIT, REG = 3, 1e-3
# how far a picture may be off
TOL = 1e-4


def draw(theme: Theme) -> Figure:
    """Digits, their mean and two barycentres above; a ring that becomes two discs below."""
    figure = Figure(figsize=(9.6, 3.1))
    above, below = figure.subplots(2, 7)
    images = digits()
    cost = so.GridCost((SIDE, SIDE))
    plain, sharp = (
        so.barycenter(
            images.flatten(1), cost, REG, debiased=debiased, tol=TOL, on_fail="ignore"
        ).histogram
        for debiased in (False, True)
    )
    shown = [*images[:4], images.mean(0), plain.view(SIDE, SIDE), sharp.view(SIDE, SIDE)]
    titles = ("some of 100 digits", "", "", "", "mean", "barycentre", "debiased")
    for at, image, title in zip(above, shown, titles, strict=True):
        _image(theme, at, image, title)
    for at, (image, t) in zip(below, between(len(below)), strict=True):
        _image(theme, at, image, f"{t:.2f}")
    figure.subplots_adjust(wspace=0.08, hspace=0.3)
    return figure


def digits() -> Tensor:
    """Return a hundred handwritten digits of one kind, (100, 28, 28), of mass one each."""
    held = load_digits()
    images = torch.from_numpy(held.images[held.target == DIGIT][:100])
    images = torch.nn.functional.interpolate(images[:, None], (SIDE, SIDE), mode="bicubic")[:, 0]
    images = images.clamp(min=0)
    return images / images.sum((1, 2), keepdim=True)


@functools.cache
def between(count: int) -> list[tuple[Tensor, float]]:
    """Return what lies on the way from a ring to two discs, with the weight of the second."""
    x = torch.linspace(0, 1, SHAPE, dtype=torch.float64)
    x, y = torch.meshgrid(x, x, indexing="ij")
    ring = ((x - 0.5) ** 2 + (y - 0.5) ** 2).sqrt()
    ring = torch.sigmoid(60 * (0.05 - (ring - 0.3).abs()))
    discs = torch.stack([((x - s) ** 2 + (y - s) ** 2).sqrt() for s in (0.3, 0.7)])
    discs = torch.sigmoid(60 * (0.13 - discs)).sum(0)
    both = torch.stack([shape / shape.sum() for shape in (ring, discs)])
    w = torch.linspace(0, 1, count, dtype=torch.float64)
    r = so.barycenter(
        both.flatten(1).expand(count, -1, -1),
        so.GridCost((SHAPE, SHAPE)),
        REG,
        weights=torch.stack([1 - w, w], -1),
        debiased=True,
        tol=TOL,
        max_iter=300,
        on_fail="ignore",
    )
    return list(zip(r.histogram.view(count, SHAPE, SHAPE), w.tolist(), strict=True))


def _image(theme: Theme, at: Axes, image: Tensor, title: str) -> None:
    at.imshow(image.numpy() ** 0.8, cmap=theme.mass)
    at.set(xticks=[], yticks=[])
    at.set_title(title, fontsize=9, fontweight="normal")
    for spine in at.spines.values():
        spine.set_visible(False)
