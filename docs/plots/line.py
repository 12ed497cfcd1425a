"""What a plan on a circle costs against its cut, and a sliced distance against its lines."""

from functools import cache

import numpy as np
import torch
from matplotlib.figure import Figure
from style import DASHES, Theme

import sinkhorn_ot as so


POWERS = (1, 2, 4)
LINES = 4000


@cache
def circle() -> tuple[np.ndarray, list[np.ndarray]]:
    """Return cuts, and what the plans that keep the order from there on cost for each power."""
    rng = np.random.default_rng(3)
    n = 12
    x, y = np.sort(rng.random(n)), np.sort((0.5 * rng.random(n) + 0.6) % 1)
    # where mass begins later by theta, quantiles are those of the target turned on
    levels = (np.arange(2400) + 0.5) / 2400
    thetas = np.linspace(-0.6, 0.6, 121)
    first = x[(levels * n).astype(int)]
    costs = []
    for p in POWERS:
        turned = [levels + theta for theta in thetas]
        second = [y[(n * (t % 1)).astype(int)] + np.floor(t) for t in turned]
        costs.append(np.array([(abs(first - t) ** p).mean() for t in second]))
    return thetas, costs


@cache
def slices() -> tuple[torch.Tensor, float]:
    """Return costs along many lines of two clouds, and their mean along very many."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, dtype=torch.float64, generator=random)
    y = torch.randn(50, 3, dtype=torch.float64, generator=random)
    y = y * torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64)
    some = so.sliced_distance(x, y, directions=LINES, generator=random)
    many = so.sliced_distance(x, y, directions=100_000, generator=random)
    return some.each, float(many.value)


def draw(theme: Theme) -> Figure:
    """Left the cost against the cut, right the mean against the number of lines."""
    figure = Figure(figsize=(9.6, 3.4))
    left, right = figure.subplots(1, 2)
    thetas, costs = circle()
    for p, cost, color in zip(POWERS, costs, theme.series, strict=False):
        left.plot(thetas, cost / cost.min(), color=color, label=f"p = {p}")
        left.plot(thetas[cost.argmin()], 1, marker="o", color=color)
    left.set(xlabel="how much later the target begins, in mass", ylabel="cost, relative to least")
    left.set(ylim=(0.8, 6))
    left.set_title("A circle, cut")
    left.legend(fontsize=9)
    each, mean = slices()
    # as many as a line has pixels
    counts = torch.logspace(1, 3.6, 120).long().clamp(max=LINES).unique()
    running = torch.stack([each[:k].mean() for k in counts])
    spread = torch.stack([each[:k].std() / k.sqrt() for k in counts])
    blue, orange, *_ = theme.series
    right.fill_between(counts, running - spread, running + spread, color=blue, alpha=0.25)
    right.semilogx(counts, running, color=blue, label="mean, and its standard error")
    right.axhline(mean, color=orange, linewidth=1, linestyle=DASHES[1], label="100,000 lines")
    right.set(xlabel="lines", ylabel="cost along a line")
    right.set_title("Clouds, along lines")
    right.legend(fontsize=9)
    for at in (left, right):
        at.grid(True, axis="y")
    figure.subplots_adjust(wspace=0.26)
    return figure
