"""Seconds and memory of exact transport against size: pairs on demand beside POT."""

import json
from pathlib import Path

from matplotlib.figure import Figure
from style import Theme


RESULTS = Path(__file__).parents[2] / "bench" / "results" / "exact_scale.json"
NAMES = {"columns": "pairs on demand", "POT": "POT", "POT lazy": "POT lazy"}


def draw(theme: Theme) -> Figure:
    """Left the seconds, right the memory."""
    rows = json.loads(RESULTS.read_text())["rows"]
    figure = Figure(figsize=(9.6, 3.4))
    axes = figure.subplots(1, 2)
    for at, key, label in zip(axes, ("seconds", "peak_mb"), ("seconds", "MB"), strict=True):
        for color, (name, shown) in zip(theme.series, NAMES.items(), strict=False):
            some = sorted((row["n"], row[key]) for row in rows if row["solver"] == name)
            at.loglog(*zip(*some, strict=True), marker="o", markersize=4, color=color, label=shown)
        at.set(xlabel="points on each side", ylabel=label)
        at.grid(True, axis="y")
    axes[0].set_title("Time on one core")
    axes[1].set_title("Memory above the start")
    axes[0].legend(fontsize=9)
    figure.subplots_adjust(wspace=0.26)
    return figure
