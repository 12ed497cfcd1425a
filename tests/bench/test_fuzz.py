"""The fuzzer: some cases are clean, all can be told again, and what is broken is noticed."""

import time

import pytest
import torch

import sinkhorn_ot as so
from bench import __main__ as bench
from bench.cpu.fuzz import families, run
from bench.cpu.fuzz.verdict import Hangs, Verdict, watched


def fuzz(*words):
    return bench.main(["fuzz", *words])


@pytest.mark.slow(2)
def test_some_cases_are_clean_and_every_family_is_told(capsys):
    assert fuzz("--cases", "40", "--quiet") == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in out for name in families.FAMILIES)
    assert "seeds 0 to 39: 0 wrong" in out


def broken(monkeypatch, name, change):
    real = getattr(so, name)
    monkeypatch.setattr(so, name, lambda *args, **options: change(real(*args, **options)))


def wrong(family, tries=6):
    """Whether the fuzzer notices, and how it says so."""
    found = []
    for seed in range(tries):
        name, verdict = run.case(seed, family)
        assert name == family
        found += verdict.faults
    return "\n".join(found)


def off_by_a_little(r):
    # what a result keeps is flat
    r.__dict__["_plan"] = r._plan * 1.001
    return r


def tilted(r):
    r.__dict__["_primal"] = r._primal + 1e-6 * (1 + r._primal.abs())
    return r


@pytest.mark.parametrize("family", ["stored", "clouds", "relaxed", "forbidden"])
def test_a_plan_that_is_off_is_noticed(family, monkeypatch):
    assert not wrong(family)
    broken(monkeypatch, "solve", off_by_a_little)
    assert "marginals are" in wrong(family)


def test_a_value_that_is_off_is_noticed(monkeypatch):
    broken(monkeypatch, "solve", tilted)
    assert "value is" in wrong("stored")


def test_an_exact_plan_that_is_off_is_noticed(monkeypatch):
    broken(monkeypatch, "solve_exact", off_by_a_little)
    assert "marginals are" in wrong("exact")


def test_labels_that_are_worse_are_noticed(monkeypatch):
    def swapped(r):
        r.labels.copy_(r.labels.flip(-1))
        return r

    broken(monkeypatch, "balanced_labels", swapped)
    assert "value is" in wrong("balanced")


def test_codes_that_are_off_are_noticed(monkeypatch):
    broken(monkeypatch, "swav_codes", lambda Q: Q * 1.01)
    assert "a row's sum is" in wrong("swav")


def test_a_change_of_the_input_is_noticed(monkeypatch):
    real = so.solve

    def greedy(cost, *args, **options):
        r = real(cost, *args, **options)
        if isinstance(cost, torch.Tensor):
            cost.add_(1)
        return r

    monkeypatch.setattr(so, "solve", greedy)
    assert "what was handed over has changed" in wrong("stored")


@pytest.mark.parametrize("error", [IndexError, ValueError])
def test_an_error_on_a_legal_problem_is_noticed(error, monkeypatch, capsys):
    def fails(*args, **options):
        raise error("of mine")

    monkeypatch.setattr(so, "solve", fails)
    assert "of mine" in wrong("stored", 2)
    seed = next(k for k in range(100) if run.case(k)[0] == "stored")
    assert fuzz("--one", str(seed)) == 1
    assert "of mine" in capsys.readouterr().out


def test_infeasible_is_not_believed(monkeypatch):
    def shy(r):
        r.statuses[:] = [so.Status.INFEASIBLE] * len(r.statuses)
        return r

    broken(monkeypatch, "solve", shy)
    assert "told infeasible, but a plan exists" in wrong("forbidden")


def test_what_hangs_is_ended():
    def hang():
        with watched(0.05):
            while True:
                time.sleep(0.01)

    with pytest.raises(Hangs):
        hang()


def test_a_case_is_its_seed():
    assert [run.case(k)[1].told for k in range(8)] == [run.case(k)[1].told for k in range(8)]


def test_an_outcome_only_gets_worse():
    verdict = Verdict()
    verdict.at_least("missed")
    verdict.wrong("a fault")
    verdict.at_least("refused")
    assert verdict.outcome == "wrong"
    verdict.near("a number", float("nan"), 0.0, float("inf"))
    assert len(verdict.faults) == 2


def test_a_derivative_that_is_off_is_noticed(monkeypatch):
    from sinkhorn_ot.gradients.system import System

    real = System.solve
    assert not wrong("gradients", 12)
    monkeypatch.setattr(System, "solve", lambda self, s, t: real(self, s, 1.01 * t))
    assert "derivative by" in wrong("gradients", 12)
