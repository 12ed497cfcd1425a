"""The table of arguments tells the truth: POT's own signatures, ours, and the page."""

import inspect
import re
from pathlib import Path

import ot as theirs
import pytest

import sinkhorn_ot.compat.pot as ot


PAGE = Path(__file__).resolve().parents[3] / "docs" / "coming" / "pot.md"
ROW = re.compile(r"^\| `([\w.]+)` \| ([^|]*) \| ([^|]*) \|$", re.M)
TABLE = PAGE.read_text().partition("| call | what counts |")[2].partition("\n\n")[0]
ROWS = {name: (named, unused) for name, named, unused in ROW.findall(TABLE)}


def reached(module, name):
    for part in filter(None, name.split(".")):
        module = getattr(module, part)
    return module


def parameters(call):
    """Return what a call takes by name, and the default of each."""
    found = inspect.signature(call).parameters.items()
    return {name: p.default for name, p in found if p.kind is not p.VAR_KEYWORD}


@pytest.mark.parametrize("name", ROWS)
def test_every_argument_of_pots_is_in_the_table(name):
    served, unused = (re.findall(r"`(\w+)`", cell) for cell in ROWS[name])
    assert sorted(served + unused) == sorted(parameters(reached(theirs, name)))


@pytest.mark.parametrize("name", ROWS)
def test_signatures_are_pots(name):
    ours, others = (parameters(reached(module, name)) for module in (ot, theirs))
    assert list(ours) == list(others)
    assert ours == others


@pytest.mark.parametrize("name", ROWS)
def test_docstrings_say_what_does_not_count(name):
    call, (_, unused) = reached(ot, name), ROWS[name]
    said = re.findall(r"^ +(\w+): (?:Taken, |None\.$)", inspect.getdoc(call), re.M)
    assert set(said) - {"kwargs"} == set(re.findall(r"`(\w+)`", unused))


def test_every_call_has_a_row():
    """Under one of its names; a module's other names of a call are not told again."""
    told = {reached(ot, name) for name in ROWS}
    served = set()
    for module in (ot, ot.batch, ot.bregman, ot.lp, ot.partial, ot.sliced, ot.unbalanced):
        theirs_too = reached(theirs, module.__name__.partition(".pot.")[2])
        calls = {n: f for n, f in vars(module).items() if inspect.isfunction(f)}
        served |= {f for n, f in calls.items() if n[0] != "_" and hasattr(theirs_too, n)}
    assert len(served) > 20
    # a method's own name, whose answer is that of all
    assert served - told == {ot.unbalanced.sinkhorn_knopp_unbalanced}
