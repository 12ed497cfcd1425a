"""Two point clouds: where the mass goes, and what a relaxed marginal leaves behind."""

import data
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from style import Theme

import sinkhorn_ot as so


CASES = (
    ("reg = 0.3", 0.3, None),
    ("reg = 0.02", 0.02, None),
    ("reg = 0.02, unbalanced = 0.5", 0.02, 0.5),
)


def draw(theme: Theme) -> Figure:
    """Three plans as lines: blurred, sharp, and relaxed so that far points are left out."""
    x, y = data.rows()
    figure = Figure(figsize=(9.6, 2.2))
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for at, (title, reg, relax) in zip(panels, CASES, strict=True):
        r = so.solve(so.PointCloud(x, y), reg=reg, unbalanced=relax)
        _lines(theme, at, x, y, r.plan)
        _dots(theme, at, x, y, r)
        at.set_title(title)
        at.set(xticks=[], yticks=[], aspect="equal")
        for spine in at.spines.values():
            spine.set_visible(False)
    figure.subplots_adjust(wspace=0.03)
    return figure


def _lines(theme: Theme, at: Axes, x: torch.Tensor, y: torch.Tensor, P: torch.Tensor) -> None:
    share = P * x.shape[0]
    i, j = (share > 0.04).nonzero(as_tuple=True)
    segments = torch.stack([x[i], y[j]], 1).numpy()
    alpha = share[i, j].clamp(max=1).numpy() ** 0.7
    at.add_collection(LineCollection(segments, colors=theme.soft, alpha=alpha, linewidths=0.8))


def _dots(theme: Theme, at: Axes, x: torch.Tensor, y: torch.Tensor, r: so.Transport) -> None:
    # area shows how much of its mass a point keeps
    rows, columns = r.plan.sum(1) * x.shape[0], r.plan.sum(0) * y.shape[0]
    at.scatter(*x.T, s=22 * rows, color=theme.series[1], zorder=3, linewidths=0)
    at.scatter(*y.T, s=22 * columns, color=theme.series[0], marker="s", zorder=3, linewidths=0)
    at.scatter(
        *y.T,
        s=22,
        facecolors="none",
        edgecolors=theme.series[0],
        marker="s",
        zorder=3,
        linewidths=0.6,
    )
