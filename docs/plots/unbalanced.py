"""What may be asked of a marginal: exact, a price, a mass, a slack, and bounds on clusters."""

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from style import Theme

import sinkhorn_ot as so


_REG = 4e-3
CASES = (
    ("exact", {}),
    ("TV(0.03)", {"unbalanced": so.TV(0.03)}),
    ("mass = 0.7", {"mass": 0.7}),
)
_LOW, _HIGH = 0.08, 0.3


def draw(theme: Theme) -> Figure:
    """Three plans of points with outliers, and sizes of clusters without and with bounds."""
    figure = Figure(figsize=(9.6, 2.3))
    *panels, last = figure.subplots(1, 4)
    x, y = _points()
    for at, (title, given) in zip(panels, CASES, strict=True):
        _plan(theme, at, x, y, so.solve(so.PointCloud(x, y), reg=_REG, **given).plan)
        at.set_title(title)
    _sizes(theme, last)
    figure.subplots_adjust(wspace=0.08)
    return figure


def _points() -> tuple[torch.Tensor, torch.Tensor]:
    """Return an arc and its moved copy, of both of which some points lie elsewhere."""
    random = torch.Generator().manual_seed(1)
    t = torch.linspace(0, torch.pi, 20, dtype=torch.float64)
    arc = torch.stack([t.cos(), t.sin()], -1)
    far = 0.3 * torch.rand(8, 2, generator=random, dtype=torch.float64)
    return torch.cat([arc, far + torch.tensor([-1.3, -0.3])]), torch.cat(
        [0.93 * arc + torch.tensor([0.05, 0.06]), far + torch.tensor([1.0, -0.4])]
    )


def _plan(theme: Theme, at: Axes, x: torch.Tensor, y: torch.Tensor, P: torch.Tensor) -> None:
    share = P * len(x)
    i, j = (share > 0.1).nonzero(as_tuple=True)
    alpha = share[i, j].clamp(max=1).numpy() ** 0.7
    segments = torch.stack([x[i], y[j]], 1).numpy()
    at.add_collection(LineCollection(segments, colors=theme.soft, alpha=alpha, linewidths=0.8))
    # area shows how much of its mass a point keeps
    for points, mass, colour, mark in (
        (x, P.sum(1), theme.series[1], "o"),
        (y, P.sum(0), theme.series[0], "s"),
    ):
        at.scatter(*points.T, s=16 * mass * len(x), color=colour, marker=mark, linewidths=0)
        at.scatter(
            *points.T, s=16, facecolors="none", edgecolors=colour, marker=mark, linewidths=0.5
        )
    at.set(xticks=[], yticks=[], aspect="equal")
    for spine in at.spines.values():
        spine.set_visible(False)


def _sizes(theme: Theme, at: Axes) -> None:
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(2000, 6, generator=random, dtype=torch.float64)
    scores += torch.tensor([2.0, 1.2, 0.6, 0.0, -1.0, -4.0])
    for k, (name, asked) in enumerate((("free", 0), ("between", so.Between(_LOW, _HIGH)))):
        sizes = so.solve(-scores, reg=0.1, unbalanced=(None, asked)).plan.sum(0)
        places = torch.arange(6) + 0.4 * k - 0.2
        at.bar(places, sizes, 0.38, color=theme.series[1 - k], label=name)
    for bound in (_LOW, _HIGH):
        at.axhline(bound, color=theme.ink, linewidth=0.8, linestyle=(0, (4, 3)))
    at.set_title("clusters")
    at.set(xticks=[], ylabel="share")
    at.yaxis.tick_right()
    at.yaxis.set_label_position("right")
    at.spines["right"].set_visible(True)
    at.spines["left"].set_visible(False)
    at.legend(loc="upper right", fontsize=8)
