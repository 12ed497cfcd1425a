"""What each method learns of digits without labels: the runs of docs/examples/table.py."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from style import MARKS, Theme, table


SOURCE = Path(__file__).with_name("learnt.json")
MEASURES = {"nmi": "NMI", "accuracy": "accuracy", "rand": "ARI", "neighbours": "k-NN"}


def runs() -> dict[str, list[dict[str, Any]]]:
    """Return the runs of each method."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(SOURCE.read_text())["rows"]:
        found.setdefault(row["method"], []).append(row)
    return found


def tables() -> None:
    """Write mean and deviation over the seeds, and the mutual information of each seed."""
    rows = [
        [name, *(_spread([run[key] for run in some]) for key in MEASURES)]
        for name, some in runs().items()
    ]
    table("learnt", ["", *MEASURES.values()], rows)
    seeds = range(max(map(len, runs().values())))
    rows = [
        [name, *(f"{run['nmi']:.3f}" for run in some), f"{_mean_seconds(some):.0f} s"]
        for name, some in runs().items()
        if len(some) > 1 and _mean_seconds(some) > 1
    ]
    table("learnt_seeds", ["", *(f"seed {seed}" for seed in seeds), "training"], rows)


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def _mean_seconds(some: list[dict[str, Any]]) -> float:
    return statistics.mean(run.get("seconds", 0.0) for run in some)


def draw(theme: Theme) -> Figure:
    """Each run a mark; the line is what raw pixels reach."""
    found = runs()
    names = [name for name in found if name != "raw pixels"][::-1]
    figure = Figure(figsize=(9.6, 0.42 * len(names) + 1.0))
    panels = figure.subplots(1, 2, sharey=True, gridspec_kw=dict(wspace=0.08))
    for axes, key in zip(panels, ("nmi", "neighbours"), strict=True):
        _panel(axes.plot, found, names, key, theme.series[0])
        axes.axvline(found["raw pixels"][0][key], color=theme.series[1], linewidth=1.4)
        axes.grid(axis="x")
    panels[0].set_title("clusters: NMI")
    panels[1].set_title("held-out digits: k-NN")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(-0.6, len(names) - 0.4)
    at = found["raw pixels"][0]["nmi"], len(names) - 0.8
    panels[0].annotate("  raw pixels", at, color=theme.series[1], fontsize=9)
    return figure


def _panel(
    plot: Callable[..., Any],
    found: dict[str, list[dict[str, Any]]],
    names: list[str],
    key: str,
    colour: str,
) -> None:
    for height, name in enumerate(names):
        values = [run[key] for run in found[name]]
        plot(values, [height] * len(values), MARKS[0], color=colour, markersize=6, alpha=0.75)
