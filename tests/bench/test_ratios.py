"""Rows beside a peer: how they are kept, chosen, measured again and told."""

import argparse
import math
import shlex
import time
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch

from bench import ROOT
from bench import __main__ as bench
from bench.cpu import measure, vs
from bench.cpu.cases import dense
from bench.cpu.vs import memory, relaxed, threads
from bench.ratios import family, race, row, run


TABLES = ("ratios", "ratios_slower")
MODULES = [import_module(f"bench.cpu.vs.{file.name}") for file in iter_modules(vs.__path__)]
FAST = race.Entrant("sinkhorn_ot", lambda stop: lambda: sum(range(100)))
SLOW = race.Entrant("slow", lambda stop: lambda: sum(range(100_000)))
ABSENT = race.Entrant("absent", lambda stop: lambda: None, package="no_such_package")


def a_row(case="a case", ratio=1.0, **more):
    return row.Row("vs_l1", case, "peer", 2.0, 2.0 * ratio, **more)


@pytest.fixture(autouse=True)
def _few_turns(monkeypatch):
    monkeypatch.setattr(race, "_SPENT", 0.02)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    for module in (row, measure):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    return tmp_path


def test_rows_are_kept_as_they_are(kept):
    rows = [a_row(others={"peer": 2.0}, error=1e-6), a_row("no peer", math.inf)]
    assert row.load("vs_l1") == []
    assert row.save("vs_l1", rows).parent == kept
    assert row.load("vs_l1") == rows
    assert "Infinity" not in (kept / "vs_l1.json").read_text()


def test_the_table_begins_with_the_worst(kept, capsys):
    rows = [a_row("fine", 1.3), a_row("slow", 0.7), a_row("slower", 0.5), a_row("even", 1.0)]
    rows += [a_row("missed", 3.0, error=1e-6, our_error=1e-5), a_row("late", 1.1, over=True)]
    row.save("vs_l1", rows)
    assert bench.main(["ratios", "--families", "vs_l1", "vs_small"]) == 0
    out = capsys.readouterr().out
    told = [line for line in out.splitlines() if "ours" in line]
    assert [line.split()[1] for line in told] == ["missed", "slower", "slow", "even"]
    assert "4 of 6 below 1.2, 3 below 0.9" in out
    assert "not measured: vs_small" in out
    assert "python -m bench vs_l1 --only slower" in out
    bench.main(["ratios", "--families", "vs_l1", "--below", "0.6"])
    assert "2 of 6 below 0.6" in capsys.readouterr().out


@pytest.mark.parametrize("module", MODULES)
def test_what_measures_a_row_again_selects_it_alone(module):
    cells = list(module.cells())
    assert len({cell.case for cell in cells}) == len(cells)
    for cell in cells:
        words = shlex.split(row.Row(module.FAMILY, cell.case, "", 1.0, 1.0).again)
        assert words[:3] == ["python", "-m", "bench"]
        assert import_module(f"bench.{bench.TABLE[words[3]].module}") is module
        asked = bench.parsed(words[3], module, words[4:])
        assert family.chosen(cells, asked.only, asked.full) == [cell]


def test_only_selects_names_that_contain_it():
    cells = [
        family.Cell(name, lambda: None, full=name == "c 10") for name in ("a 1", "b 1", "c 10")
    ]
    assert [c.case for c in family.chosen(cells, None, False)] == ["a 1", "b 1"]
    assert [c.case for c in family.chosen(cells, None, True)] == ["a 1", "b 1", "c 10"]
    assert [c.case for c in family.chosen(cells, "1", False)] == ["a 1", "b 1"]
    # a reproducer finds what is measured with --full alone
    assert [c.case for c in family.chosen(cells, "c 10", False)] == ["c 10"]
    assert bench.main(["vs_l1", "--only", "no such case"]) == 1


def test_a_case_that_fails_does_not_cost_the_others(kept, capsys):
    cells = [family.Cell("bad", lambda: 1 / 0), family.Cell("good", a_row)]
    asked = argparse.Namespace(only=None, full=False)
    assert family.measure("vs_l1", cells, asked) == 1
    assert "bad failed: ZeroDivisionError" in capsys.readouterr().out
    assert row.load("vs_l1") == [a_row()]


def test_a_part_is_not_kept(kept, capsys):
    assert bench.main(["vs_small", "--only", "points 64 uniform reg 1 tol 0.001"]) == 0
    assert "POT" in capsys.readouterr().out
    assert list(kept.iterdir()) == []


def test_an_absent_peer_gives_no_row(capsys):
    race._is_here.cache_clear()
    assert race.race(("f", "c"), FAST, [ABSENT]) is None
    assert "no_such_package is absent" in capsys.readouterr().out
    assert race.race(("f", "c"), FAST, [ABSENT, SLOW]).peer == "slow"


def test_the_best_peer_counts():
    assert race.race(("f", "c"), FAST, [SLOW]).ratio > 10
    quick = replace(FAST, name="quick")
    found = race.race(("f", "c"), replace(SLOW, name="sinkhorn_ot"), [SLOW, quick])
    assert found.peer == "quick"
    assert found.ratio < 1


def test_a_peer_gets_the_loosest_stop_that_arrives():
    tried = []
    peer = race.Entrant("peer", lambda s: lambda: tried.append(s) or s, float, (1.0, 0.1, 0.01))
    found = race.arrive(peer, 0.2, 1.0)
    assert found.error == 0.1
    assert tried == [1.0, 0.1]
    assert race.arrive(peer, 1e-3, 1.0) is None
    tried.clear()
    peer = replace(peer, stops=(1.0, 0.1, 0.01, 1e-3))
    # 0.1 would be 25 times too loose
    assert race.arrive(peer, 4e-3, 1.0).error == 1e-3
    assert tried == [1.0, 0.01, 1e-3]


def test_who_raises_or_is_late_has_not_arrived(monkeypatch):
    def forever():
        while True:
            pass

    broken = race.Entrant("broken", lambda stop: lambda: 1 / 0, package="torch")
    late = race.Entrant("late", lambda stop: forever)
    assert race.arrive(broken, 1.0, 1.0) is None
    # what this package raises is for whoever measures
    with pytest.raises(ZeroDivisionError):
        race.arrive(replace(broken, package="sinkhorn_ot"), 1.0, 1.0)
    start = time.process_time()
    assert race.arrive(late, 1.0, 0.02) is race.LATE
    assert time.process_time() - start < 1
    monkeypatch.setattr(race, "_LEAST", 0.02)
    assert race.race(("f", "c"), SLOW, [broken]).ratio == math.inf
    found = race.race(("f", "c"), SLOW, [late, broken])
    assert found.over
    assert run.below([found], math.inf) == []


def test_every_family_is_in_the_table():
    assert {module.FAMILY for module in MODULES} == set(run.FAMILIES)


def test_peaks_are_those_of_the_call_alone():
    held = torch.zeros(1 << 20)
    # so much is never taken from what the process has held before
    case = {"a": lambda small: {"ours": lambda: torch.zeros(1 if small else 1 << 24)}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "CASES", case)
        assert memory.peak("a", "ours") == pytest.approx(64, abs=2)
    del held


def test_threads_are_not_measured_where_cores_are_busy(kept, monkeypatch, capsys):
    monkeypatch.setattr(threads, "idle_cores", lambda: 1.2)
    assert bench.main(["vs_threads"]) == 0
    assert "two idle cores are needed, 1.2 are" in capsys.readouterr().out
    assert list(kept.iterdir()) == []
    monkeypatch.setattr(threads, "_SPENT", 0.01)
    assert bench.main(["vs_threads", "--only", "swav_codes 4096x3000, a small one"]) == 0
    assert "one thread" in capsys.readouterr().out


@pytest.mark.parametrize("rhos", [(1.0, 1.0), (0.1, math.inf), (math.inf, 10.0)])
def test_the_true_plan_of_relaxed_marginals_is_checked(rhos):
    case = dense("points", 20)
    P = relaxed.truth(case, 0.01, rhos)
    given = [t.numpy() for t in (case.C, case.a, case.b)]
    assert relaxed.violation(P, *given, 0.01, rhos) < 1e-9
    assert relaxed.violation(P * (1 + 1e-4 * case.C.numpy()), *given, 0.01, rhos) > 1e-6
    assert relaxed.violation(P, *given, 0.011, rhos) > 1e-3


def test_the_pages_tell_who_is_slower(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "plots"))
    page, style = (import_module(name) for name in ("ratios", "style"))
    monkeypatch.setattr(row, "RESULTS", tmp_path)
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    told = tmp_path / "page.md"
    told.write_text("".join(f"<!-- begin {name} -->\n<!-- end {name} -->\n" for name in TABLES))
    monkeypatch.setattr(style, "PAGES", tmp_path)
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    page.rows.cache_clear()
    page.tables()
    assert "python -m bench ratios --measure" in told.read_text()
    kept = [
        a_row("fine", 1.3),
        a_row("slow", 0.95),
        a_row("slower", 0.5),
        a_row("nobody", math.inf),
    ]
    missed = replace(SLOW, error=lambda _: 1.0)
    kept.append(race.race(("vs_l1", "missed"), missed, [FAST], 0.1))
    row.save("vs_l1", [*kept, a_row("late", 0.5, over=True)])
    page.rows.cache_clear()
    assert set(page.FAMILIES) == set(run.FAMILIES)
    page.tables()
    page.rows.cache_clear()
    slower = told.read_text().split("<!-- begin ratios_slower -->\n\n")[1]
    lines = slower.split("\n\n")[0].splitlines()[2:]
    assert [line.split("`")[1].split()[-1] for line in lines] == ["missed", "slower", "slow"]
    assert "| 5 | 0.50 | 0.00 | 3 | 2 |" in told.read_text()
