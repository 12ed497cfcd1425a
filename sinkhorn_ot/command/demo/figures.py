"""The demo's pictures: plans between images, plans between clouds, and clusters of digits."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor


INK, BLUE, RED = "#222222", "#1f6fb4", "#d1492e"


def save(figure: Figure, path: Path) -> Path:
    """Write the figure and return where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    return path


def images(plans: dict[str, Tensor], grid: Tensor) -> Figure:
    """What each plan moves where, and the images on the way from source to target.

    Args:
        plans: Plans between pixels by name, (64, 64) each.
        grid: Row and column of the pixels, (64, 2).
    """
    figure = Figure(figsize=(11, 1.9 * len(plans)), layout="constrained")
    steps = torch.linspace(0, 1, 6).tolist()
    rows = figure.subplots(len(plans), 1 + len(steps), squeeze=False, width_ratios=[1.5] + [1] * 6)
    for (first, *others), (name, P) in zip(rows, plans.items(), strict=True):
        used = P[P.sum(1) > 0][:, P.sum(0) > 0]
        first.imshow(used.sqrt().numpy(), cmap="Blues", interpolation="nearest", aspect="auto")
        first.set(xticks=[], yticks=[], xlabel="target pixels", ylabel="source pixels")
        first.set_title(f"plan, {name}", fontsize=10, color=INK)
        for axes, t in zip(others, steps, strict=True):
            axes.imshow(on_the_way(P, grid, t).numpy(), cmap="Greys", interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            title = {0.0: "source", 1.0: "target"}.get(t, f"{t:.0%} of the way")
            axes.set_title(title, fontsize=10, color=INK)
    return figure


def on_the_way(P: Tensor, grid: Tensor, t: float) -> Tensor:
    """Return the image, (8, 8), when all mass has gone the share t of its straight way."""
    side = int(grid.max()) + 1
    at = ((1 - t) * grid[:, None, :] + t * grid[None, :, :]).reshape(-1, 2)
    low = at.floor().long().clamp(0, side - 2)
    rest = at - low
    image = torch.zeros(side * side, dtype=P.dtype)
    # each unit is shared by the four pixels around it
    for row in (0, 1):
        for column in (0, 1):
            weight = (rest[:, 0] - (1 - row)).abs() * (rest[:, 1] - (1 - column)).abs()
            pixel = (low[:, 0] + row) * side + low[:, 1] + column
            image.index_add_(0, pixel, P.reshape(-1) * weight)
    return image.view(side, side)


def clouds(x: Tensor, y: Tensor, plans: dict[str, Tensor], names: tuple[str, str]) -> Figure:
    """Two clouds in the plane and the pairs that each plan joins, darker where more mass goes."""
    figure = Figure(figsize=(5.2 * len(plans), 4.7), layout="constrained")
    for axes, (name, P) in zip(_row(figure, len(plans)), plans.items(), strict=True):
        share = P / P.amax()
        rows, columns = (share > 0.02).nonzero(as_tuple=True)
        lines = torch.stack([x[rows], y[columns]], 1).numpy()
        strength = share[rows, columns].clamp(max=1).numpy()
        colours = [(0.35, 0.35, 0.35, float(0.55 * s)) for s in strength]
        axes.add_collection(LineCollection(list(lines), colors=colours, linewidths=0.8))
        for points, colour, label in ((x, BLUE, names[0]), (y, RED, names[1])):
            at = points[:, 0].numpy(), points[:, 1].numpy()
            axes.scatter(*at, 14, colour, label=label, linewidths=0, zorder=3)
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=11, color=INK)
        for side in axes.spines.values():
            side.set_visible(False)
    figure.axes[0].legend(frameon=False, loc="upper left", handletextpad=0.1)
    return figure


def clusters(images: Tensor, labels: Tensor, found: dict[str, Tensor], shown: int = 14) -> Figure:
    """Some members of every cluster, a row each; a digit that is not its row's majority is red.

    Args:
        images: Digits, (N, 1, 8, 8).
        labels: Which digit each one is, (N,).
        found: Clusters by title, (N,) each.
        shown: Members drawn per cluster.
    """
    figure = Figure(figsize=(4.6 * len(found), 4), layout="constrained")
    for axes, (title, cluster) in zip(_row(figure, len(found)), found.items(), strict=True):
        axes.imshow(_wall(images, labels, cluster, shown).numpy(), interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(title, fontsize=11, color=INK)
    return figure


def _wall(images: Tensor, labels: Tensor, cluster: Tensor, shown: int) -> Tensor:
    """Return a picture, (height, width, 3), of the clusters in the order of their majorities."""
    majority = {k: int(labels[cluster == k].mode().values) for k in cluster.unique().tolist()}
    order = sorted(majority, key=majority.__getitem__)
    side = images.shape[-1] + 2
    wall = torch.ones(len(order) * side, shown * side, 3)
    red = torch.tensor([0.82, 0.2, 0.1])
    for row, k in enumerate(order):
        members = (cluster == k).nonzero()[:shown, 0]
        for column, i in enumerate(members.tolist()):
            ink = images[i, 0, :, :, None].clamp(0, 1)
            colour = torch.zeros(3) if labels[i] == majority[k] else red
            top, left = row * side + 1, column * side + 1
            wall[top : top + side - 2, left : left + side - 2] = 1 - ink * (1 - colour)
    return wall


def _row(figure: Figure, n: int) -> Sequence[Axes]:
    return list(figure.subplots(1, n, squeeze=False)[0])
