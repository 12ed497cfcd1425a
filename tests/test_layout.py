"""The walls of the package: what may import what, and what a file looks like."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sinkhorn_ot


ROOT = Path(sinkhorn_ot.__file__).parent
REPOSITORY = ROOT.parent
# a room may import only what stands above it
_ORDER = """
    kernels _check _exp _memory rows cost stream problem sweep status steps support _reference
    _blocks _sparse _torch _triton _ops _shared _streamed _sharded backends coupling certificate
    rounding result anneal acceleration sinkhorn newton
    _small automatic engines exact progress solve exchange balanced adapters compat
    testing demo
"""
ORDER = _ORDER.split()
# not rglob, which does not follow the link to kernels/
FILES = sorted(p for p in [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")] if p != ROOT / "__init__.py")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def _imports(path: Path) -> Iterator[str]:
    """Yield the absolute name of everything a file imports, at its top or inside a function."""
    package = ("sinkhorn_ot", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports from; `.` is the package's own surface."""
    names = [m.split(".") for m in _imports(path) if m.split(".")[0] == "sinkhorn_ot"]
    return {name[1] if len(name) > 1 and name[1] in ORDER else "." for name in names}


def test_every_room_has_its_place() -> None:
    assert {_room(path) for path in FILES} <= set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_point_down(path: Path) -> None:
    room = _room(path)
    # the demo is a user: it imports the surface
    surface = {"."} if room == "demo" else set()
    assert _rooms(path) <= {*ORDER[: ORDER.index(room) + 1], *surface}


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_only_kernels_and_their_door_import_triton(path: Path) -> None:
    if _room(path) not in ("kernels", "_triton"):
        assert not [m for m in _imports(path) if m.split(".")[0] == "triton"]
        assert "kernels" not in _rooms(path)


def test_kernels_are_a_leaf() -> None:
    for path in FILES:
        if _room(path) == "kernels":
            owners = {m.split(".")[0] for m in _imports(path)}
            assert owners - sys.stdlib_module_names <= {"sinkhorn_ot", "torch", "triton"}


@pytest.mark.parametrize("path", [ROOT / "__init__.py", *FILES], ids=_name)
def test_a_file_says_its_idea_first_and_stays_short(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "the first statement must be a docstring"
    assert len(text.splitlines()) <= 400


def test_setup_lists_the_packages_that_exist() -> None:
    text = (REPOSITORY / "setup.py").read_text()
    match = re.search(r"packages=(\[[^\]]*\])", text)
    assert match
    found = {ROOT, *(path.parent for path in FILES)}
    names = {".".join(("sinkhorn_ot", *path.relative_to(ROOT).parts)) for path in found}
    assert set(ast.literal_eval(match[1])) == names


def test_the_link_to_kernels_is_relative_and_committed() -> None:
    link = ROOT / "kernels"
    assert link.is_symlink()
    assert link.readlink() == Path("../kernels")


def test_public_names_exist_and_are_sorted() -> None:
    assert sorted(sinkhorn_ot.__all__) == list(sinkhorn_ot.__all__)
    assert all(hasattr(sinkhorn_ot, name) for name in sinkhorn_ot.__all__)
