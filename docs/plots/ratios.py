"""Every family of cases beside its best peer: where we are slower, and how much."""

import json
import math
import statistics
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from style import Theme, table, write


RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
# files of bench/results/, and what their cases are
FAMILIES = {
    "vs_grid": "the grid, beside POT and MDOT-TNT",
    "vs_small": "64 to 300 points, beside POT",
    "vs_relaxed": "relaxed marginals, beside POT",
    "vs_batches": "batches, beside their loop and POT",
    "vs_neighbours": "problems next door, beside POT",
    "vs_clouds": "clouds, beside their matrix",
    "vs_divergence": "divergences of clouds, beside GeomLoss",
    "vs_ragged": "ragged batches, beside loops and weights of zero",
    "vs_l1": "pixel grids, beside MDOT-TNT",
    "vs_emd": "exact plans, beside ot.emd and SciPy",
    "vs_simplex": "exact counts, beside the simplex",
    "vs_published": "SwAV's codes, beside its loop",
    "vs_sela": "SeLa's labels, beside its loop",
    "vs_layers": "layers, beside plain loops",
    "vs_threads": "two threads, beside one",
    "memory": "peak memory, beside all of these",
}
# what is drawn, what is even, and how low a ratio may be
_SHOWN, _EVEN, _BAR = (0.1, 100.0), 1.0, 0.9
_NOTHING = "Not measured yet in this checkout: run `python -m bench ratios --measure`.\n"


@cache
def rows(family: str) -> list[dict[str, Any]]:
    """Return the rows of a family that a peer took part in."""
    path = RESULTS / f"{family}.json"
    found = json.loads(path.read_text())["rows"] if path.exists() else []
    return [row for row in found if row["ratio"] is not None]


def known() -> list[str]:
    """Return the families that were measured."""
    return [family for family in FAMILIES if rows(family)]


def tables() -> None:
    """Write what comes of every family, and each case in which a peer takes less."""
    if not known():
        for name in ("ratios", "ratios_slower"):
            write(name, _NOTHING)
        return
    header = ["cases", "how many", "median ratio", "least", f"below {_EVEN:g}", f"below {_BAR:g}"]
    table("ratios", header, [_summed(family) for family in known()])
    found = [row for family in known() for row in rows(family)]
    slower = sorted((r for r in found if _slower(r, _EVEN)), key=lambda row: row["ratio"])
    header = ["ratio", "here", "the best peer", "", "what measures it again"]
    table("ratios_slower", header, [_told(r) for r in slower] or [["none", *[""] * 4]])


def _slower(row: dict[str, Any], bound: float) -> bool:
    return row["ratio"] < bound and not row["over"]


def _summed(family: str) -> list[str]:
    found = rows(family)
    ratios = [row["ratio"] for row in found]
    counts = [str(sum(_slower(row, bound) for row in found)) for bound in (_EVEN, _BAR)]
    middle = f"{statistics.median(ratios):.2f}"
    return [FAMILIES[family], str(len(found)), middle, f"{min(ratios):.2f}", *counts]


def _told(row: dict[str, Any]) -> list[str]:
    ours, theirs = (_taken(row[who], row["unit"]) for who in ("ours", "theirs"))
    return [f"{row['ratio']:.2f}", ours, row["peer"], theirs, f"`{row['again']}`"]


def _taken(number: float | None, unit: str) -> str:
    return "–" if number is None else f"{number:.2g} {unit}"


def draw(theme: Theme) -> Figure:
    """One line of points for each family, on one logarithmic axis."""
    figure = Figure(figsize=(9.0, 0.6 + 0.42 * max(1, len(known()))))
    at = figure.subplots()
    for place, family in enumerate(reversed(known())):
        _strip(theme, at, place, rows(family))
    for bound, dash in ((_EVEN, "-"), (_BAR, (0, (4, 2)))):
        at.axvline(bound, color=theme.soft, linewidth=1, linestyle=dash, zorder=0)
    at.set_xscale("log")
    at.set(xlim=(0.9 * _SHOWN[0], 1.1 * _SHOWN[1]), xlabel="the best peer's over ours")
    ticks = (0.1, 0.3, 1, 3, 10, 30, 100)
    at.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    at.minorticks_off()
    at.set_yticks(range(len(known())), [FAMILIES[family] for family in reversed(known())])
    at.set_ylim(-0.6, len(known()) - 0.4)
    at.tick_params(axis="y", length=0)
    at.spines["left"].set_visible(False)
    return figure


def _strip(theme: Theme, at: Any, place: int, found: list[dict[str, Any]]) -> None:
    """Draw the points of a family, spread so that none hides another; hollow: at least so much."""
    groups: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for k, row in enumerate(sorted(found, key=lambda row: row["ratio"])):
        x = min(max(row["ratio"], _SHOWN[0]), _SHOWN[1])
        # steps of the golden section fill the width evenly
        y = place + 0.5 * (math.modf(k * 0.618034)[0] - 0.5)
        colour = theme.series[1] if _slower(row, _BAR) else theme.series[0]
        groups.setdefault((colour, row["over"]), []).append((x, y))
    for (colour, over), points in groups.items():
        face = "none" if over else colour
        look = {"markersize": 3.6, "markeredgewidth": 0.8, "markerfacecolor": face}
        at.plot(*zip(*points, strict=True), "o", color=colour, **look)
