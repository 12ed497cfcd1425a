"""Public signatures say what is taken, in words of the tables that are looked up."""

import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from project.test_docstrings import ENTRIES

import sinkhorn_ot as so
from sinkhorn_ot.adapters.deepcluster import metrics as of_clusters
from sinkhorn_ot.adapters.sela import labels as sela
from sinkhorn_ot.adapters.swav import codes as swav
from sinkhorn_ot.compat.pot import samples as of_samples
from sinkhorn_ot.compat.pot import solvers as pot
from sinkhorn_ot.compat.pot import unbalanced as penalised
from sinkhorn_ot.compat.pot.lp import line as of_lines
from sinkhorn_ot.exact.engines import table as engines
from sinkhorn_ot.problem.costs import metrics as of_points
from sinkhorn_ot.solvers import automatic as solvers


# what may be anything
ANYTHING = {
    # objects of others' code: what has these names
    "sinkhorn_ot.compat.selflabel.optimize_L_sk": {"self"},
    "sinkhorn_ot.compat.selflabel.optimize_L_sk_gpu": {"args"},
    "sinkhorn_ot.compat.swav.reading": {"args"},
    # a tensor, or a number of NumPy, or an array of several; a sparse tensor or a matrix of SciPy
    **{
        f"sinkhorn_ot.compat.pot.result.OTResult.{name}": {"return"}
        for name in ("value", "value_linear", "sparse_plan")
    },
    # a result of whatever kind was kept
    "sinkhorn_ot.from_state_dict": {"return"},
    # kept as it was given, and made by no caller
    "sinkhorn_ot.Divergence.__init__": {"reg"},
}


def functions(path: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield (name, function) of an entry of the reference: itself, or what a class has of ours."""
    thing = pkgutil.resolve_name(":".join(path.rsplit(".", 1)))
    if not inspect.isclass(thing):
        yield path, thing
        return
    for name, member in inspect.getmembers(thing):
        act = getattr(member, "fget", getattr(member, "func", member))
        ours = (getattr(act, "__module__", "") or "").startswith("sinkhorn_ot")
        if (
            ours
            and inspect.isfunction(act)
            and (name in ("__init__", "__call__") or name[0] != "_")
        ):
            yield f"{path}.{name}", act


@pytest.mark.parametrize("path", ENTRIES)
def test_no_argument_is_just_anything(path):
    for name, act in functions(path):
        # also that whoever reads hints at run time finds what they name
        hints = typing.get_type_hints(act)
        assert {k for k, hint in hints.items() if hint is Any} <= ANYTHING.get(name, set()), name
        assert set(inspect.signature(act).parameters) <= {*hints, "self", "cls"}, name


@pytest.mark.parametrize(
    ("words", "table"),
    [
        (of_points.MetricName, of_points.METRICS),
        (of_clusters.MetricName, of_clusters.METRICS),
        (of_samples.MetricName, of_samples.METRICS),
        (of_lines.Metric, of_lines._POWERS),
        (solvers.MethodName, solvers.METHODS),
        (engines.EngineName, engines.ENGINES),
        (pot.PenaltyType, [*penalised.PENALTIES, *map(str.upper, penalised.PENALTIES)]),
    ],
)
def test_words_are_those_of_a_table(words, table):
    assert set(typing.get_args(words)) == set(table)


@pytest.mark.parametrize(
    ("options", "call"),
    [
        (swav.Options, so.swav_codes),
        (sela.OptionsOverRanks, so.sela_labels),
    ],
)
def test_options_that_are_handed_on_are_those_of_the_call(options, call):
    named = {
        k: p for k, p in inspect.signature(call).parameters.items() if p.kind is p.KEYWORD_ONLY
    }
    hints = typing.get_type_hints(call)
    assert typing.get_type_hints(options) == {k: hints[k] for k in named}


def test_an_alias_keeps_its_name_in_a_signature():
    told = str(inspect.signature(so.solve))
    assert "ArrayLike" in told
    assert "Sequence[" not in told
    assert "Literal['warn', 'raise', 'ignore']" in told
