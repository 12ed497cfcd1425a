"""The walls of the package: what may import what, by which door, and what a file looks like."""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import sinkhorn_ot
from sinkhorn_ot.problem.others.packages import INSTALLED_AS


ROOT = Path(sinkhorn_ot.__file__).parent
REPOSITORY = ROOT.parent
# a room may import only what stands before it; the command line is a user, as its demo is, and
# imports the surface
_ORDER = "kernels problem sweeps results exact solvers gradients solve derived adapters"
ORDER = [*_ORDER.split(), "compat", "testing", "command"]
# who may launch kernels, and only from inside a function or from a module that is imported late
LAUNCHES = {
    "sweeps/gpu/clouds.py",
    "sweeps/gpu/choice.py",
    "sweeps/gpu/dense.py",
    "sweeps/gpu/near.py",
    "sweeps/gpu/shared.py",
    "gradients/layer/operators.py",
    "adapters/swav/operators.py",
    "adapters/moe.py",
}
# how the package is entered, by code and by a shell
DOORS = (ROOT / "__init__.py", ROOT / "__main__.py")
# who may call the constructor of a problem
MAKER = "problem/making.py"
FILES = sorted(p for p in ROOT.rglob("*.py") if p not in DOORS)
# the link to kernels/ is not followed
KERNELS = sorted((ROOT / "kernels").glob("*.py"))


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


def _ours(path: Path) -> list[list[str]]:
    """Return what a file imports from the package, each as room, ..., name."""
    names = [m.split(".") for m in _imports(path)]
    return [name[1:] for name in names if name[0] == "sinkhorn_ot"]


def test_every_room_has_its_place() -> None:
    assert {_room(path) for path in FILES} | {"kernels"} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_point_down(path: Path) -> None:
    room = _room(path)
    rooms = {name[0] for name in _ours(path) if name and name[0] in ORDER}
    assert rooms <= set(ORDER[: ORDER.index(room) + 1])
    if room != "command":
        assert all(name and name[0] in ORDER for name in _ours(path)), "it is for users"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_neighbours_use_the_door(path: Path) -> None:
    """Files know those of their own folder and of the folders around it, others by the door."""
    around = [path.parent, *path.parent.parents]
    for *module, name in filter(None, _ours(path)):
        inside = ROOT.joinpath(*module)
        folder = inside if inside.is_dir() else inside.parent
        if folder in around or module[:1] == ["kernels"]:
            continue
        door = importlib.import_module(".".join(["sinkhorn_ot", *module]))
        assert inside == folder, f"{'.'.join(module)} is inside of a folder with a door"
        assert name in door.__all__, f"{'.'.join(module)} does not export {name}"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_few_launch_kernels_and_none_imports_triton(path: Path) -> None:
    assert not [m for m in _imports(path) if m.split(".")[0] == "triton"]
    launches = any(name[0] == "kernels" for name in _ours(path) if name)
    assert launches == (_name(path) in LAUNCHES)


@pytest.mark.parametrize("path", [p for p in FILES if _room(p) != "command"], ids=_name)
def test_what_only_some_calls_need_is_told_where_it_is_missing(path: Path) -> None:
    """Its import stands in a call, and inside of what says how it is installed."""
    tree = ast.parse(path.read_text())
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.With)]
    guards = [node for node in blocks if "needs(" in ast.unparse(node.items[0])]
    assert not set(guards) & set(tree.body)
    safe = {statement for node in guards for statement in node.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in safe:
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            assert not {name.split(".")[0] for name in names} & set(INSTALLED_AS), names


def test_kernels_are_a_leaf() -> None:
    for path in KERNELS:
        owners = {m.split(".")[0] for m in _imports(path)}
        assert owners - sys.stdlib_module_names <= {"sinkhorn_ot", "torch", "triton"}
        assert all(name[0] == "kernels" for name in _ours(path))


@pytest.mark.parametrize("path", [*DOORS, *FILES, *KERNELS], ids=_name)
def test_a_file_says_its_idea_first_and_stays_short(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "the first statement must be a docstring"
    assert len(text.splitlines()) <= 400


@pytest.mark.parametrize("path", [*FILES, *KERNELS], ids=_name)
def test_problems_are_made_by_their_maker(path: Path) -> None:
    """What calls the constructor itself goes behind the checks."""
    calls = [
        node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    names = [f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in calls]
    assert "Problem" not in names or _name(path) == MAKER


def test_a_folder_fits_in_a_head() -> None:
    # a door, what Python leaves behind, a marker, and a link to a folder that stands elsewhere
    besides = {"__init__.py", "__main__.py", "__pycache__", "py.typed", "kernels"}
    for folder in {path.parent for path in FILES}:
        entries = [p for p in folder.iterdir() if p.name not in besides]
        assert len(entries) <= 12, folder


def test_an_underscore_before_a_module_would_carry_no_rule() -> None:
    assert not [p for p in FILES if p.name.startswith("_") and not p.name.startswith("__")]


def test_the_link_to_kernels_is_relative_and_committed() -> None:
    link = ROOT / "kernels"
    assert link.is_symlink()
    assert link.readlink() == Path("../kernels")


@pytest.mark.parametrize("folder", ["", *ORDER[1:]])
def test_what_a_door_exports_exists_and_is_sorted(folder: str) -> None:
    door = importlib.import_module(f"sinkhorn_ot.{folder}".rstrip("."))
    names = getattr(door, "__all__", [])
    assert sorted(names) == list(names)
    assert all(hasattr(door, name) for name in names)


@pytest.mark.parametrize("folder", [p.parent for p in FILES if p.name == "__init__.py"], ids=_name)
def test_a_name_is_a_module_or_what_is_in_it(folder: Path) -> None:
    """What a door exports would hide a module of the same name from tests and debuggers."""
    door = importlib.import_module(".".join(["sinkhorn_ot", *folder.relative_to(ROOT).parts]))
    modules = {p.stem for p in folder.iterdir()}
    shadowed = modules & set(getattr(door, "__all__", []))
    assert all(isinstance(getattr(door, name), ModuleType) for name in shadowed)
