"""`make quick` is complete in breadth: every folder has tests that are not marked slow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest


TESTS = Path(__file__).parents[1]
FOLDERS = sorted({path.parent for path in TESTS.rglob("test_*.py")})


def _quick(path: Path) -> Iterator[str]:
    """Yield the tests of a file that `make quick` runs."""
    text = path.read_text()
    if "\npytestmark = pytest.mark.slow(" in text:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            if not any(mark.startswith("pytest.mark.slow") for mark in marks):
                yield node.name


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(TESTS)))
def test_every_folder_has_a_part_in_it(folder: Path) -> None:
    assert any(name for path in folder.glob("test_*.py") for name in _quick(path))
