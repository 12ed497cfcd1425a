"""The reference keeps what docstrings say: no formula reads as markup, what returns is told."""

import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest


API = Path(__file__).resolve().parents[2] / "docs" / "api"
ENTRIES = sorted(
    path for page in API.glob("*.md") for path in re.findall(r"^::: (\S+)$", page.read_text(), re.M)
)
CODE = re.compile(r"(`+).+?\1", re.DOTALL)


def docstrings(path: str) -> Iterator[tuple[str, str]]:
    """Yield (name, docstring) of an entry and of what it shows of its members."""
    thing = pkgutil.resolve_name(":".join(path.rsplit(".", 1)))
    yield path, inspect.getdoc(thing) or ""
    if inspect.isclass(thing):
        for name, member in inspect.getmembers(thing):
            ours = getattr(getattr(member, "fget", member), "__module__", "") or ""
            if ours.startswith("sinkhorn_ot") and (name == "__init__" or name[0] != "_"):
                yield f"{path}.{name}", inspect.getdoc(member) or ""


@pytest.mark.parametrize("path", ENTRIES)
def test_no_formula_reads_as_markup(path: str):
    for name, text in docstrings(path):
        found = re.search(r".*<[a-zA-Z/!?].*", CODE.sub("x", text))
        assert not found, f"{name}: put what is like a tag in backticks: {found[0]}"


@pytest.mark.parametrize("path", ENTRIES)
def test_what_returns_is_a_sentence(path: str):
    """What stands before a colon would be shown as a type; the annotation says that."""
    for name, text in docstrings(path):
        found = re.search(r"^ *Returns:\n +([^\n]*: .*)$", text, re.MULTILINE)
        assert not found, f"{name}: {found[1]}"
