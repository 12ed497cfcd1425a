"""Metrics of clouds: what it costs to go from the middle, and what becomes of one plan."""

import data
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from style import Theme

import sinkhorn_ot as so


CASES = (
    ("euclidean", {}),
    ("euclidean", {"power": 0.5}),
    ("manhattan", {}),
    ("chebyshev", {}),
    ("sqeuclidean", {"scale": [1.0, 2.5]}),
)


def draw(theme: Theme) -> Figure:
    """For each metric lines of one cost, and below the plan of the same two clouds."""
    figure = Figure(figsize=(9.6, 3.0))
    panels = figure.subplots(2, len(CASES), height_ratios=[1, 1])
    x, y = data.rows()
    line = torch.linspace(-1, 1, 31, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    middle = torch.zeros(1, 2, dtype=torch.float64)
    for (top, below), (metric, how) in zip(panels.T, CASES, strict=True):
        cost = so.PointCloud(grid.reshape(-1, 2), middle, metric, **how)
        C = cost.flat(torch.Size([1])).rows(0, 31 * 31)[0, :, 0].view(31, 31)
        levels = torch.linspace(0, float(C[15, 30]) * 1.2, 7)[1:]
        top.contour(line, line, C, levels=levels, colors=[theme.series[0]], linewidths=0.8)
        top.set_title(", ".join([metric, *(f"{k} {v}" for k, v in how.items())]), fontsize=8)
        spread = so.PointCloud(x, y, metric, **how)
        reg = 0.02 * spread.validate().high
        P = so.solve(spread, reg=reg).plan * len(x)
        i, j = (P > 0.12).nonzero(as_tuple=True)
        segments = torch.stack([x[i], y[j]], 1).numpy()
        alpha = P[i, j].clamp(max=1).numpy() ** 0.7
        below.add_collection(
            LineCollection(segments, colors=theme.soft, alpha=alpha, linewidths=0.7)
        )
        below.scatter(*x.T, s=8, color=theme.series[1], zorder=3, linewidths=0)
        below.scatter(*y.T, s=8, color=theme.series[0], marker="s", zorder=3, linewidths=0)
        for at in (top, below):
            at.set(xticks=[], yticks=[], aspect="equal")
            for spine in at.spines.values():
                spine.set_visible(False)
    figure.subplots_adjust(wspace=0.05, hspace=0.05)
    return figure
