"""The rooms of the package, what is in them and who imports whom, read from the sources."""

import ast
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from style import Theme, table


PACKAGE = Path(__file__).resolve().parents[2] / "sinkhorn_ot"
# the doors, and the command line, which is a user
SKIPPED = {"__init__", "__main__", "command"}
# colours: what is asked and the primitive, the loop, what is known, the surface
KINDS = {
    0: {"kernels", "problem", "sweeps"},
    1: {"solvers", "exact", "derived"},
    2: {"results", "gradients"},
    3: {"solve", "adapters", "compat", "testing"},
}
_WIDTH, _LEFT = 0.8, 0.15


def room(path: Path) -> str:
    """Return a module's room: its folder at the top of the package, or the file itself."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def files() -> dict[str, list[Path]]:
    """Return the files of every room."""
    found = [p for p in sorted(PACKAGE.rglob("*.py")) if room(p) not in SKIPPED]
    rooms: dict[str, list[Path]] = {}
    # the kernels are behind a link, which the search above does not follow
    for path in [*found, *sorted((PACKAGE / "kernels").glob("*.py"))]:
        rooms.setdefault(room(path), []).append(path)
    return rooms


@cache
def imports() -> dict[str, set[str]]:
    """Return, for every room, the other rooms that it imports."""
    graph = {}
    for name, paths in files().items():
        trees = [ast.parse(path.read_text()) for path in paths]
        found = {other for tree in trees for node in ast.walk(tree) for other in _imported(node)}
        graph[name] = (found & set(files())) - {name}
    return graph


def _imported(node: ast.AST) -> Iterator[str]:
    """Yield the rooms that one statement imports; neighbours name them in full."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
        rooms = (node.module or "").split(".")[1:]
        yield from rooms[:1] or [alias.name for alias in node.names]


@cache
def storey(name: str) -> int:
    """Return how high a room stands: above all that it imports."""
    return 1 + max((storey(below) for below in imports()[name]), default=-1)


@cache
def below(name: str) -> frozenset[str]:
    """Return all rooms that one rests on."""
    return frozenset(imports()[name].union(*(below(other) for other in imports()[name])))


def order() -> list[str]:
    """Return the rooms from the ground up."""
    return sorted(files(), key=lambda name: (storey(name), name))


def draw(theme: Theme) -> Figure:
    """Draw the rooms one above the other; arrows that a longer path implies are left out."""
    rooms = order()
    figure = Figure(figsize=(9.6, 0.62 * len(rooms) + 0.2))
    at = figure.add_axes((0, 0, 1, 1))
    at.set(xlim=(0, 1), ylim=(-0.6, len(rooms) - 0.4))
    at.axis("off")
    for name in rooms:
        direct = {x for x in imports()[name] if not any(x in below(y) for y in imports()[name])}
        for other in sorted(direct):
            _arrow(theme, at, rooms.index(name), rooms.index(other))
    for y, name in enumerate(rooms):
        _box(theme, at, name, y)
    return figure


def _arrow(theme: Theme, at, start: int, end: int) -> None:
    near = start - end == 1
    at.add_patch(
        FancyArrowPatch(
            (_LEFT + 0.06, start - 0.28) if near else (_LEFT, start),
            (_LEFT + 0.06, end + 0.28) if near else (_LEFT, end),
            connectionstyle="arc3" if near else f"arc3,rad={min(0.6, 0.16 * (start - end))}",
            arrowstyle="-|>",
            mutation_scale=10,
            color=theme.soft,
            linewidth=1.0,
        )
    )


def _box(theme: Theme, at, name: str, y: int) -> None:
    kind = next(k for k, names in KINDS.items() if name in names)
    at.add_patch(
        FancyBboxPatch(
            (_LEFT, y - 0.28),
            _WIDTH,
            0.56,
            boxstyle="round,pad=0,rounding_size=0.015",
            mutation_aspect=8,
            facecolor=theme.page,
            edgecolor=theme.series[kind],
            linewidth=1.4,
        )
    )
    at.text(_LEFT + 0.015, y, name, va="center", fontsize=11, weight="bold", color=theme.ink)
    at.text(_LEFT + 0.125, y, _contents(name), va="center", fontsize=8, color=theme.ink)


def _contents(name: str) -> str:
    """Return what a room holds, in lines that fit its box."""
    folder = PACKAGE / name
    if not folder.is_dir():
        return ""
    inside = {path.relative_to(folder).with_suffix("").parts[0] for path in files()[name]}
    return "\n".join(textwrap.wrap("  ".join(sorted(inside - {"__init__"})), 118))


def tables() -> None:
    """Write what each file is for, from its first line, room by room from the ground up."""
    rows = []
    for name in order():
        for path in files()[name]:
            shown = str(path.relative_to(PACKAGE)).removesuffix("__init__.py")
            first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
            rows.append([f"**`{shown}`**" if shown.endswith("/") else f"`{shown}`", first])
    table("rooms", ["file", "what it is for"], rows)
