"""What a user sees and decides while a solve runs."""

import re

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing


P = testing.random(20, 15, 2e-3)


def test_the_callback_hears_every_sweep():
    told = []
    r = so.solve(P.cost, P.a, P.b, P.reg, method="sinkhorn", callback=told.append)
    assert [at.n_iter for at in told] == list(range(1, int(r.n_iter) + 1))
    assert told[-1].marginal_error == pytest.approx(float(r.marginal_error))
    assert told[-1].reg_factor == 1
    assert told[0].reg_factor > 1
    assert all(at.running == 1 for at in told)


@pytest.mark.parametrize("at", [1, 2, 5, 40])
@pytest.mark.parametrize("method", ["sinkhorn", "newton"])
def test_the_callback_stops(at, method):
    """At whatever stage: what was reached is returned, and it is said."""
    r = so.solve(
        P.cost, P.a, P.b, P.reg, method=method, tol=1e-15, on_fail="ignore",
        callback=lambda told: told.n_iter == at,
    )  # fmt: skip
    assert r.status is so.Status.STOPPED
    assert not r.converged
    # a stop while annealing takes one sweep more, at the reg that was asked for
    assert int(r.n_iter) in (at, at + 1)
    assert torch.isfinite(r.plan).all()
    rows, columns = r.plan.sum(1), r.plan.sum(0)
    true = float((rows - P.a).abs().sum() + (columns - P.b).abs().sum())
    assert float(r.marginal_error) == pytest.approx(true, rel=1e-6, abs=1e-12)


def test_progress_is_shown_on_stderr_alone(capfd):
    so.solve(P.cost, P.a, P.b, P.reg, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "sinkhorn" in err
    assert "error=" in err


@pytest.mark.parametrize("batch", [1, 3])
def test_a_bar_counts_nothing_twice(capfd, batch):
    cost = testing.random(20, 15, 0.05).cost.expand(batch, -1, -1)
    r = so.solve(cost, reg=0.05, progress=True)
    last = capfd.readouterr().err.strip().splitlines()[-1].split("\r")[-1]
    digits, sweeps = re.findall(r"[\d.]+/[\d.]+", last)
    assert digits == "9.0/9.0"
    assert sweeps == f"{int(r.n_iter.max())}/10000"
    # what is the same all the time is not told
    assert ("running=" in last) == (batch > 1)
    assert "reg=" not in last


def test_silence_is_the_default(capfd):
    so.solve(P.cost, P.a, P.b, P.reg)
    assert capfd.readouterr() == ("", "")


def test_progress_and_callback_together(capfd):
    r = so.solve(
        P.cost, P.a, P.b, P.reg, progress=True, on_fail="ignore",
        callback=lambda told: told.n_iter == 3,
    )  # fmt: skip
    assert r.status is so.Status.STOPPED
    assert "error=" in capfd.readouterr().err


def test_failure_warns_at_the_callers_line():
    with pytest.warns(
        so.ConvergenceWarning, match="Ran out of iterations.*marginal_error"
    ) as heard:
        so.solve(P.cost, P.a, P.b, P.reg, max_iter=3)
    assert heard[0].filename == __file__


def test_failure_raises_with_the_result():
    with pytest.raises(so.ConvergenceError, match="Ran out of iterations") as caught:
        so.solve(P.cost, P.a, P.b, P.reg, max_iter=3, on_fail="raise")
    reached = caught.value.result
    assert isinstance(reached, so.Transport)
    assert int(reached.n_iter) == 3
    assert float(reached.marginal_error) > 1e-9


def test_failure_is_kept_quiet_when_asked():
    r = so.solve(P.cost, P.a, P.b, P.reg, max_iter=3, on_fail="ignore")
    assert not r.converged
    with pytest.raises(so.ConvergenceError):
        r.check()


def test_success_passes_the_check():
    r = so.solve(P.cost, P.a, P.b, P.reg, on_fail="raise")
    assert r.check() is r


def test_an_error_in_a_callback_is_the_callers():
    def broken(told):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        so.solve(P.cost, P.a, P.b, P.reg, callback=broken)


def test_who_stops_is_not_asked_again_and_not_warned():
    told = []
    r = so.solve(P.cost, P.a, P.b, P.reg, callback=lambda at: told.append(at) or True)
    assert r.status is so.Status.STOPPED
    assert len(told) == 1
