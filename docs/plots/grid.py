"""What the grid measured: each cell a problem and an error, this package beside the best."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from style import table, write


FILE = Path(__file__).resolve().parents[2] / "bench" / "results" / "grid.json"
REGS = (1e-1, 1e-2, 1e-3, 1e-4)
HERE, EXACT = "sinkhorn_ot", "network simplex"
NOTHING = "Not measured yet in this checkout: run `python -m bench grid`.\n"
TABLE_NAMES = ("grid", "grid_summary", "grid_slower", "grid_short", "grid_exact", "grid_machine")


@dataclass(frozen=True)
class Cell:
    """One problem to one error.

    Attributes:
        problem: What the file says of the problem.
        error: The error to reach.
        rows: What each solver needed, by its name.
    """

    problem: dict[str, Any]
    error: float
    rows: dict[str, dict[str, Any]]

    @property
    def ours(self) -> float | None:
        """Seconds of this package, where it got there."""
        row = self.rows[HERE]
        return row["seconds"] if row["status"] == "reached" else None

    @property
    def best(self) -> tuple[str, float] | None:
        """The fastest of the others that got there."""
        found = [(row["seconds"], name) for name, row in self._others() if _reached(row)]
        return (min(found)[1], min(found)[0]) if found else None

    @property
    def bound(self) -> float | None:
        """What the others were given, where none got there and one might have."""
        given = [row["seconds"] for _, row in self._others() if row["status"] == "over"]
        return min(given) if given else None

    @property
    def ratio(self) -> float | None:
        """Seconds of the best peer over ours; where none got there, what it was given over ours."""
        if self.ours is None:
            return None
        seconds = self.best[1] if self.best else self.bound
        return None if seconds is None else seconds / self.ours

    def _others(self) -> list[tuple[str, dict[str, Any]]]:
        return [(k, row) for k, row in self.rows.items() if k not in (HERE, EXACT)]


def _reached(row: dict[str, Any]) -> bool:
    return row["status"] == "reached"


@cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


@cache
def cells() -> list[Cell]:
    """Return every cell."""
    found = []
    for problem in _file().get("problems", []):
        for error in sorted({row["error"] for row in problem["rows"]}, reverse=True):
            rows = {row["peer"]: row for row in problem["rows"] if row["error"] == error}
            found.append(Cell(problem, error, rows))
    return found


def tables() -> None:
    """Write every table, or say that nothing was measured."""
    if not cells():
        for name in TABLE_NAMES:
            write(name, NOTHING)
        return
    _everything()
    _summary()
    _slower()
    _short()
    _exact()
    told = ", ".join(f"{k} {v}" for k, v in _file()["machine"].items())
    write("grid_machine", f"Measured on: {told}.\n")


def _everything() -> None:
    header = ["problem", "reg", "to", "here, s", "best of the others", "s", "ratio", "gap here"]
    rows = []
    for cell in cells():
        name, seconds = cell.best or ("none in time", None)
        rows.append(
            [
                cell.problem["name"],
                f"{cell.problem['reg']:.2g}",
                f"{cell.error:g}",
                _seconds(cell.ours),
                name,
                _seconds(seconds),
                _times(cell),
                _digits(cell.rows[HERE].get("gap")),
            ]
        )
    table("grid", header, rows)


def _summary() -> None:
    header = ["reg", "to", "problems", "median ratio", "least", "reached here", "by the others"]
    rows = []
    groups = [(1e-1, 1), (1e-2, 1e-1), (1e-3, 1e-2), (0, 1e-3), (0, 1)]
    for low, high in groups:
        for error in (1e-3, 1e-6, 1e-9):
            part = [c for c in cells() if c.error == error and low <= c.problem["reg"] < high]
            if part:
                label = "all" if (low, high) == (0, 1) else f"{low:g} to {high:g}"
                rows.append([label, f"{error:g}", *_summed(part)])
    table("grid_summary", header, rows)


def _summed(part: list[Cell]) -> Iterable[str]:
    ratios = [cell.ratio for cell in part if cell.ratio is not None]
    ours = sum(cell.ours is not None for cell in part)
    others = sum(cell.best is not None for cell in part)
    middle = f"{statistics.median(ratios):.1f}" if ratios else "–"
    least = f"{min(ratios):.2f}" if ratios else "–"
    return str(len(part)), middle, least, str(ours), str(others)


def _slower() -> None:
    header = ["problem", "reg", "to", "here, s", "faster", "s", "ratio"]
    found = [c for c in cells() if c.ours and c.best and c.best[1] < 0.9 * c.ours]
    rows = [
        [
            c.problem["name"],
            f"{c.problem['reg']:.2g}",
            f"{c.error:g}",
            _seconds(c.ours),
            c.best[0],
            _seconds(c.best[1]),
            f"{c.ratio:.2f}",
        ]
        for c in found
        if c.best
    ]
    table("grid_slower", header, rows or [["none", *[""] * 6]])


def _short() -> None:
    header = ["problem", "reg", "to", "what came of it", "error reached"]
    rows = [
        [
            c.problem["name"],
            f"{c.problem['reg']:.2g}",
            f"{c.error:g}",
            c.rows[HERE]["status"],
            _digits(c.rows[HERE].get("reached")),
        ]
        for c in cells()
        if c.ours is None
    ]
    table("grid_short", header, rows or [["none", *[""] * 4]])


def _exact() -> None:
    header = ["problem", "network simplex, s", *(f"reg {reg:g}" for reg in REGS)]
    found: dict[str, dict[float, Cell]] = {}
    for c in cells():
        if c.error == 1e-6:
            found.setdefault(c.problem["name"], {})[c.problem["reg"]] = c
    rows = []
    for name, by_reg in found.items():
        # it does not see reg, and is asked once
        exact = [c.rows[EXACT] for c in by_reg.values() if EXACT in c.rows]
        if not exact:
            continue
        best = min((row["seconds"] for row in exact if _reached(row)), default=None)
        ours = [by_reg[reg].ours if reg in by_reg else None for reg in REGS]
        rows.append([name, _seconds(best), *map(_seconds, ours)])
    table("grid_exact", header, rows)


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.2g}"


def _times(cell: Cell) -> str:
    if cell.ratio is None:
        return "–"
    return f"{'' if cell.best else 'over '}{cell.ratio:.1f}"


def _digits(number: float | None) -> str:
    return "–" if number is None else f"{number:.0e}"
