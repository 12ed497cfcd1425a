"""Performance profiles: the share of problems that each solver solves within a factor of the best.

Source: E. Dolan, J. More, Benchmarking optimization software with performance profiles, 2002.
"""

from typing import Any

import grid
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from style import DASHES, Theme


# variants of one package count as one solver: the best of them, chosen per problem
FAMILIES = {"POT": "POT", "OTT-JAX": "OTT", "MDOT-TNT": "MDOT", "RegOT": "RegOT"}
ERRORS = (1e-3, 1e-6, 1e-9)
# regs of a row, and who was asked about all of them
ROWS = {
    "reg ≥ 0.01": (5e-3, 1.0, ("POT", "OTT-JAX", "MDOT-TNT")),
    "reg ≤ 0.001": (0.0, 5e-3, ("POT", "OTT-JAX", "MDOT-TNT", "RegOT")),
}
# nobody was given more time than this many times ours, or little more
FARTHEST = 10.0


def draw(theme: Theme) -> Figure:
    """One row for large and one for small reg, one column for each error."""
    figure = Figure(figsize=(9.6, 5.2))
    panels = figure.subplots(len(ROWS), len(ERRORS), sharex=True, sharey=True, squeeze=False)
    for line, (title, (low, high, names)) in zip(panels, ROWS.items(), strict=True):
        for at, error in zip(line, ERRORS, strict=True):
            cells = [c for c in grid.cells() if c.error == error and _asked(c, low, high, names)]
            _panel(theme, at, cells, names)
            at.set_title(f"{title}, to {error:g} ({len(cells)})", fontsize=9.5)
        line[0].set_ylabel("share solved")
    for at in panels[-1]:
        at.set_xlabel("time / best time")
    panels[-1][0].legend(loc="upper left", fontsize=8)
    figure.subplots_adjust(wspace=0.08, hspace=0.25)
    return figure


def _asked(cell: grid.Cell, low: float, high: float, names: tuple[str, ...]) -> bool:
    return low <= cell.problem["reg"] < high and all(_rows(cell, FAMILIES[n]) for n in names)


def _rows(cell: grid.Cell, prefix: str) -> list[dict[str, Any]]:
    return [row for name, row in cell.rows.items() if name.startswith(prefix)]


def _seconds(cell: grid.Cell, prefix: str) -> float:
    found = [row["seconds"] for row in _rows(cell, prefix) if row["status"] == "reached"]
    return min(found, default=float("inf"))


def _panel(theme: Theme, at: Axes, cells: list[grid.Cell], names: tuple[str, ...]) -> None:
    series = {"here": grid.HERE} | {name: FAMILIES[name] for name in names}
    colours = (theme.series[0], theme.series[1], theme.series[2], theme.series[3], theme.soft)
    dashes = (*DASHES, (0, (1, 3)))
    times = {name: [_seconds(c, prefix) for c in cells] for name, prefix in series.items()}
    best = [min(column) for column in zip(*times.values(), strict=True)]
    for (name, mine), colour, dash in zip(times.items(), colours, dashes, strict=False):
        ratios = sorted(t / b for t, b in zip(mine, best, strict=True) if t < float("inf"))
        x = [1.0, *(min(r, FARTHEST) for r in ratios if r <= FARTHEST), FARTHEST]
        y = [0.0, *((k + 1) / len(cells) for k in range(len(x) - 2))]
        at.step(x, [*y, y[-1]], where="post", color=colour, linestyle=dash, label=name)
    at.set_xscale("log")
    at.set(xlim=(1, FARTHEST), ylim=(-0.02, 1.03))
    at.set_xticks([1, 2, 3, 5, 10], ["1", "2", "3", "5", "10"])
    at.minorticks_off()
    at.grid(True, axis="y")
