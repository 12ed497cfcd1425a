"""Entropic plans between two histograms as reg falls."""

import data
import torch
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from style import Theme

import sinkhorn_ot as so


REGS = (1.0, 0.1, 0.01, 0.001)


def draw(theme: Theme) -> Figure:
    """One plan per reg, its marginals at the sides of the first."""
    C, a, b = data.histograms()
    figure = Figure(figsize=(9.6, 3.1))
    grid = GridSpec(
        2,
        5,
        figure,
        width_ratios=[0.22, 1, 1, 1, 1],
        height_ratios=[0.22, 1],
        wspace=0.08,
        hspace=0.06,
    )
    side = figure.add_subplot(grid[1, 0])
    side.fill_betweenx(range(len(a)), -a, color=theme.series[1], alpha=0.85, linewidth=0)
    side.set(ylim=(len(a) - 0.5, -0.5))
    side.axis("off")
    side.set_title("a", loc="center", color=theme.series[1])
    for k, reg in enumerate(REGS):
        P = so.solve(C, a, b, reg).plan
        top = figure.add_subplot(grid[0, k + 1])
        top.fill_between(range(len(b)), b, color=theme.series[2], alpha=0.85, linewidth=0)
        top.set(xlim=(-0.5, len(b) - 0.5))
        top.axis("off")
        top.set_title(f"reg = {reg:g}", loc="center")
        at = figure.add_subplot(grid[1, k + 1])
        # the square root lets thin and thick plans share one scale
        at.imshow(torch.sqrt(P / P.max()), cmap=theme.mass, vmin=0, vmax=1, aspect="auto")
        at.set(xticks=[], yticks=[])
        for spine in at.spines.values():
            spine.set(visible=True, color=theme.faint)
    figure.text(0.9, 0.83, "b", color=theme.series[2], weight="bold")
    return figure
