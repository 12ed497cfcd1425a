"""Maps out of sample: a potential and its map on a grid, and a photograph in another's colours."""

import data
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from style import Theme

import sinkhorn_ot as so


# every so many pixels are drawn, and so many are fitted on
SHRINK, PIXELS = 6, 1000


def draw(theme: Theme) -> Figure:
    """A field of arrows over the potential, then source, target and mapped photograph."""
    figure = Figure(figsize=(9.6, 1.9))
    panels = figure.subplots(1, 4, width_ratios=[1.5, 1, 1, 1])
    _field(theme, panels[0])
    source, target = (
        torch.from_numpy(load_sample_image(name) / 255.0) for name in ("china.jpg", "flower.jpg")
    )
    x, y = (_some(image.reshape(-1, 3)) for image in (source, target))
    few = source[::SHRINK, ::SHRINK]
    sent = so.solve(so.PointCloud(x, y), reg=0.01).map(few.reshape(-1, 3)).view_as(few)
    images = few, target[::SHRINK, ::SHRINK], sent
    for at, image, title in zip(
        panels[1:], images, ("a photograph", "another", "in its colours"), strict=True
    ):
        at.imshow(image.numpy())
        at.set_title(title)
    for at in panels:
        at.set(xticks=[], yticks=[])
        for spine in at.spines.values():
            spine.set_visible(False)
    figure.subplots_adjust(wspace=0.06)
    return figure


def _some(pixels: torch.Tensor) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return pixels[torch.randperm(len(pixels), generator=random)[:PIXELS]]


def _field(theme: Theme, at: Axes) -> None:
    x, y = data.rows()
    y = y[:-2]
    r = so.solve(so.PointCloud(x, y), reg=0.05)
    across, up = (
        torch.linspace(*ends, dtype=torch.float64) for ends in ((-0.2, 3, 40), (-0.4, 1.3, 24))
    )
    grid = torch.stack(torch.meshgrid(across, up, indexing="xy"), -1)
    f = r.potential(grid.reshape(-1, 2)).view(grid.shape[:2])
    at.contour(*grid.unbind(-1), f, levels=12, colors=theme.soft, linewidths=0.5, linestyles="-")
    few = grid[::5, ::5].reshape(-1, 2)
    way = r.map(few) - few
    at.quiver(
        *few.T, *way.T, angles="xy", scale_units="xy", scale=1, width=4e-3, color=theme.series[2]
    )
    at.scatter(*x.T, s=9, color=theme.series[1], zorder=3, linewidths=0)
    at.scatter(*y.T, s=9, color=theme.series[0], marker="s", zorder=3, linewidths=0)
    at.set_title("new points, from a grid")
    at.set_aspect("equal")
