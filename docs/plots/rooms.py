"""The rooms of the package and who imports whom, read from the sources."""

import ast
import math
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from style import Theme, table


PACKAGE = Path(__file__).resolve().parents[2] / "sinkhorn_ot"
# rooms that stand outside the picture: the front door, and the demonstration
SKIPPED = {"__init__", "__main__", "demo"}


def room(path: Path) -> str:
    """Return a module's room: its file, or its folder for the adapters and the kernels."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


@cache
def imports() -> dict[str, set[str]]:
    """Return, for every room, the rooms it imports at run time."""
    # the kernels are a leaf behind a link, which the search below does not follow
    rooms: dict[str, set[str]] = {"kernels": set()}
    for path in sorted(PACKAGE.rglob("*.py")):
        if room(path) in SKIPPED:
            continue
        found = rooms.setdefault(room(path), set())
        folder = path.relative_to(PACKAGE).parts[:-1]
        for node in ast.walk(ast.parse(path.read_text())):
            found.update(_imported(node, folder))
    names = set(rooms)
    return {name: (found & names) - {name} for name, found in rooms.items()}


def _imported(node: ast.AST, folder: tuple[str, ...]) -> Iterator[str]:
    """Yield the rooms that one statement imports."""
    if not isinstance(node, ast.ImportFrom):
        return
    within = [*folder[: len(folder) - node.level + 1]] if node.level else []
    for alias in node.names:
        parts = [*within, *(node.module or "").split("."), alias.name]
        parts = [part for part in parts if part]
        if node.level:
            yield parts[0]
        elif parts[0] == PACKAGE.name:
            yield parts[1]


def levels() -> dict[str, int]:
    """Return each room's storey: as high as those who import it allow, the ground at 0."""
    graph = imports()

    @cache
    def height(name: str) -> int:
        return 1 + max((height(below) for below in graph[name]), default=-1)

    @cache
    def level(name: str) -> int:
        above = [level(other) for other, found in graph.items() if name in found]
        return min(above) - 1 if above else height(name)

    return {name: level(name) for name in graph}


def direct() -> dict[str, set[str]]:
    """Return the imports that no longer path already implies."""
    graph = imports()

    @cache
    def below(name: str) -> frozenset[str]:
        return frozenset(graph[name].union(*(below(other) for other in graph[name])))

    return {
        name: {x for x in found if not any(x in below(other) for other in found - {x})}
        for name, found in graph.items()
    }


def draw(theme: Theme) -> Figure:
    """Draw the rooms in storeys, each arrow pointing down to what is imported."""
    storeys, places = _storeys(), _places()
    figure = Figure(figsize=(9.6, 0.62 * len(storeys) + 0.3))
    at = figure.add_axes((0, 0, 1, 1))
    at.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(storeys) - 0.4))
    at.axis("off")
    for name, found in direct().items():
        for other in sorted(found):
            _arrow(theme, at, places[name], places[other])
    for name, (x, y) in places.items():
        _box(theme, at, name, x, y)
    return figure


def _storeys() -> dict[int, list[str]]:
    storeys: dict[int, list[str]] = {}
    for name, level in levels().items():
        storeys.setdefault(level, []).append(name)
    return storeys


@cache
def _places() -> dict[str, tuple[float, float]]:
    """Spread each storey so that arrows are short, seldom cross and pass through no room."""
    storeys = _storeys()
    draw = random.Random(0)
    edges = [(name, other) for name, found in direct().items() for other in sorted(found)]
    columns = max(5, *map(len, storeys.values()))
    grid = [0.08 + 0.84 * k / (2 * columns - 2) for k in range(2 * columns - 1)]
    apart = 0.95 * (grid[2] - grid[0])
    slots = {level: _slots(names, len(grid)) for level, names in storeys.items()}
    height = {name: level for level, names in storeys.items() for name in names}

    def place() -> dict[str, tuple[float, float]]:
        return {
            name: (x, float(height[name]))
            for level in slots
            for x, name in zip(grid, slots[level], strict=True)
            if name
        }

    score = _ugliness(place(), edges, apart)
    for step in range(12000):
        row = slots[draw.choice(sorted(slots))]
        i, j = draw.sample(range(len(grid)), 2)
        row[i], row[j] = row[j], row[i]
        now = _ugliness(place(), edges, apart)
        # simulated annealing: a worse drawing is kept now and then, ever less often
        if now <= score - (1 - step / 12000) * 0.8 * math.log(draw.random()):
            score = now
        else:
            row[i], row[j] = row[j], row[i]
    return place()


def _slots(names: list[str], width: int) -> list[str]:
    """Put the names of one storey on every other slot, blanks between."""
    row = [""] * width
    first = (width - 2 * len(names) + 1) // 2
    for k, name in enumerate(names):
        row[first + 2 * k] = name
    return row


def _ugliness(
    places: dict[str, tuple[float, float]], edges: list[tuple[str, str]], apart: float
) -> float:
    """Score a drawing: length of arrows, arrows through rooms, crossings, rooms that touch."""
    lines = [(*places[name], *places[other]) for name, other in edges]
    score = sum(abs(x0 - x1) for x0, _, x1, _ in lines)
    for x0, y0, x1, y1 in lines:
        for x, y in places.values():
            if y1 < y < y0:
                score += 3 * (abs(x1 + (x0 - x1) * (y - y1) / (y0 - y1) - x) < 0.5 * apart)
    for k, one in enumerate(lines):
        score += sum(0.6 * _cross(one, other) for other in lines[:k])
    rooms = list(places.values())
    for k, (x, y) in enumerate(rooms):
        score += sum(9 * (y == v and abs(x - u) < apart) for u, v in rooms[:k])
    return score


def _cross(p: tuple[float, ...], q: tuple[float, ...]) -> bool:
    top, bottom = min(p[1], q[1]), max(p[3], q[3])
    if top <= bottom:
        return False

    def at(line: tuple[float, ...], y: float) -> float:
        return line[2] + (line[0] - line[2]) * (y - line[3]) / (line[1] - line[3])

    return (at(p, top) - at(q, top)) * (at(p, bottom) - at(q, bottom)) < -1e-9


def _arrow(theme: Theme, at, start: tuple[float, float], end: tuple[float, float]) -> None:
    at.add_patch(
        FancyArrowPatch(
            (start[0], start[1] - 0.24),
            (end[0], end[1] + 0.24),
            arrowstyle="-|>",
            mutation_scale=9,
            color=theme.soft,
            linewidth=0.9,
            zorder=1,
        )
    )


def _box(theme: Theme, at, name: str, x: float, y: float) -> None:
    colour = theme.series[_kind(name)]
    at.add_patch(
        FancyBboxPatch(
            (x - 0.065, y - 0.2),
            0.13,
            0.4,
            boxstyle="round,pad=0,rounding_size=0.02",
            mutation_aspect=8,
            facecolor=theme.page,
            edgecolor=colour,
            linewidth=1.4,
            zorder=2,
        )
    )
    at.text(x, y - 0.02, name, ha="center", va="center", fontsize=9.5, color=theme.ink, zorder=3)


def _kind(name: str) -> int:
    """Return the colour of a room: arithmetic, loop, result, or surface."""
    kinds = (
        {
            "_check",
            "_exp",
            "_memory",
            "cost",
            "problem",
            "sweep",
            "_blocks",
            "_reference",
            "_shared",
            "_small",
            "_sparse",
            "_torch",
            "_triton",
            "backends",
            "kernels",
        },
        {
            "acceleration",
            "anneal",
            "automatic",
            "engines",
            "exact",
            "newton",
            "progress",
            "sinkhorn",
            "steps",
            "support",
        },
        {"coupling", "rounding", "certificate", "result", "status"},
    )
    return next((k for k, names in enumerate(kinds) if name in names), 3)


def tables() -> None:
    """Write what each room is for, from the first line of its source."""
    order = sorted(levels().items(), key=lambda item: (item[1], item[0]))
    rows = []
    for name, _ in order:
        path = PACKAGE / f"{name}.py"
        path = path if path.exists() else PACKAGE / name / "__init__.py"
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
        rows.append([f"`{name}`", first])
    table("rooms", ["room", "what it is for"], rows)
