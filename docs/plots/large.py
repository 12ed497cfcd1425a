"""Seconds and memory against size, of all that was measured on one core; and the table of it."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from style import MARKS, Theme, table


RESULTS = Path(__file__).parents[2] / "bench" / "results"


def rows(name: str) -> list[dict[str, Any]]:
    """Return what a bench measured."""
    found: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return found


def lines() -> dict[str, list[dict[str, Any]]]:
    """Return the measurements that are of one kind, by what the legend calls it."""
    scale, exact, near = rows("scale"), rows("exact_scale"), rows("near")
    return {
        "entropic, matrix, reg 1e-2": [r for r in scale if r["case"] == "matrix"],
        "entropic, all pairs of clouds, reg .1": [r for r in scale if r["case"] == "clouds"],
        "entropic, near points, reg 1e-4": [r for r in near if (r["d"], r["reg"]) == (2, 1e-4)],
        "entropic, near points of a cube, reg 1e-3": [r for r in near if r["d"] == 3],
        "exact, pairs on demand": [r for r in exact if r["solver"] == "columns"],
        "exact, POT on the matrix": [r for r in exact if r["solver"] == "POT"],
        "exact, POT lazy": [r for r in exact if r["solver"] == "POT lazy"],
    }


def draw(theme: Theme) -> Figure:
    """Left the seconds, right the memory."""
    figure = Figure(figsize=(9.6, 4.4))
    axes = figure.subplots(1, 2)
    keys = (("seconds", "seconds"), ("peak_mb", "MB"))
    for at, (key, label) in zip(axes, keys, strict=True):
        for k, (name, some) in enumerate(lines().items()):
            known = sorted((r["n"], r[key]) for r in some if key in r)
            if known:
                color, mark = theme.series[k % len(theme.series)], MARKS[k % len(MARKS)]
                how = {"marker": mark, "color": color, "label": name}
                # what is exact is dashed
                how["linestyle"] = "--" if name.startswith("exact") else "-"
                at.loglog(*zip(*known, strict=True), **how)
        at.set(xlabel="points on each side", ylabel=label)
        at.grid(True, axis="y")
    axes[0].set_title("Time on one core")
    axes[1].set_title("Memory above the start")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=2, fontsize=9)
    figure.subplots_adjust(wspace=0.26, bottom=0.36)
    return figure


def _near() -> None:
    header = ["points", "d", "reg", "tol", "s", "MB", "sweeps", "error reached", "left out"]
    found = [
        [
            f"{r['n']:,}",
            str(r["d"]),
            f"{r['reg']:g}",
            f"{r['tol']:g}",
            f"{r['seconds']:.0f}" if r["seconds"] > 10 else f"{r['seconds']:.1f}",
            f"{r['peak_mb']:.0f}",
            str(r["n_iter"]),
            f"{r['marginal_error']:.0e}" + f" ({r['status']})" * (r["status"] != "CONVERGED"),
            f"{r['dropped']:.0e}",
        ]
        for r in rows("near")
    ]
    table("near", header, found)


_near()
