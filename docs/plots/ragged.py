"""Handwritten digits as clouds of their dark pixels: one ragged batch of pairs, and its plans."""

from functools import cache

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from style import Theme, table
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import sinkhorn_ot as so


# images of the data set, left and right of each pair
PAIRS = ((1, 11), (0, 3), (4, 1), (6, 8))
REG = 0.1


@cache
def clouds() -> tuple[list[Tensor], list[Tensor]]:
    """Return the dark pixels of both images of each pair, (n_k, 2)."""
    images = torch.from_numpy(load_digits().images)

    def pixels(k: int) -> Tensor:
        row, column = (images[k] > 8).nonzero().double().unbind(-1)
        return torch.stack([column, -row], -1)

    left, right = zip(*PAIRS, strict=True)
    return [pixels(k) for k in left], [pixels(k) for k in right]


@cache
def solved() -> tuple[Tensor, Tensor, so.Transport]:
    """Return both padded batches, and the answer to all pairs."""
    left, right = clouds()
    x, y = (pad_sequence(side, batch_first=True, padding_value=torch.nan) for side in (left, right))
    sizes = [torch.tensor([len(cloud) for cloud in side]) for side in (left, right)]
    return x, y, so.solve(so.PointCloud(x, y), reg=REG, mask=sizes, tol=1e-12)


def draw(theme: Theme) -> Figure:
    """One pair a panel, where its mass goes as lines."""
    x, y, r = solved()
    figure = Figure(figsize=(9.6, 2.7))
    for k, at in enumerate(figure.subplots(1, len(PAIRS), sharey=True)):
        rows, columns = (int(side[k].sum()) for side in _there())
        beside = y[k, :columns] + torch.tensor([10.0, 0.0])
        _lines(theme, at, x[k, :rows], beside, r.plan[k, :rows, :columns] * rows)
        for points, colour in ((x[k, :rows], theme.series[1]), (beside, theme.series[0])):
            at.scatter(*points.T, s=20, color=colour, marker="s", zorder=3, linewidths=0)
        at.set_title(f"{rows} and {columns} points")
        at.set(xticks=[], yticks=[], aspect="equal")
        for spine in at.spines.values():
            spine.set_visible(False)
    figure.subplots_adjust(wspace=0.08)
    return figure


def _there() -> tuple[Tensor, Tensor]:
    x, y, _ = solved()
    return ~x[..., 0].isnan(), ~y[..., 0].isnan()


def _lines(theme: Theme, at: Axes, x: Tensor, y: Tensor, share: Tensor) -> None:
    i, j = (share > 0.05).nonzero(as_tuple=True)
    segments = torch.stack([x[i], y[j]], 1).numpy()
    alpha = share[i, j].clamp(max=1).numpy() ** 0.7
    at.add_collection(LineCollection(segments, colors=theme.soft, alpha=alpha, linewidths=0.7))


def tables() -> None:
    """Write what the batch tells of each pair, beside what it is alone."""
    left, right = clouds()
    _, _, r = solved()
    rows = []
    for k, pair in enumerate(zip(left, right, strict=True)):
        alone = so.solve(so.PointCloud(*pair), reg=REG, tol=1e-12)
        off = abs(float(r.value[k] - alone.value))
        sizes = " x ".join(str(len(cloud)) for cloud in pair)
        told = "below 1e-12" if off < 1e-12 else f"{off:.1e}"
        rows.append(
            [sizes, f"{float(r.value_linear[k]):.6f}", f"{float(alone.value_linear):.6f}", told]
        )
    table("ragged", ["points", "cost in the batch", "cost alone", "values differ by"], rows)
