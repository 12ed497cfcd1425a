"""The comparison of derivatives on fewer problems, its judge, and that it can fail."""

import pytest
import torch

from bench import __main__ as bench
from bench.cpu.gradients import dense, problems, run, torches


@pytest.fixture
def alone(monkeypatch):
    """Leave peers out, who compile."""
    monkeypatch.setattr(run, "PEERS", {run.HERE: run.PEERS[run.HERE]})


@pytest.mark.slow(3)
@pytest.mark.usefixtures("alone")
def test_every_error_is_small(capsys):
    assert bench.main(["gradients", "--problems", "9"]) == 0
    assert "below 1e-08" in capsys.readouterr().out


@pytest.mark.slow(2)
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("off", [1.0001, float("nan")])
def test_a_derivative_that_is_off_or_no_number_fails(off, monkeypatch, capsys):
    from sinkhorn_ot.gradients.system import System

    real = System.solve
    monkeypatch.setattr(
        System, "solve", lambda self, s, t: tuple(off * z for z in real(self, s, t))
    )
    assert bench.main(["gradients", "--problems", "1"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_the_judge_knows_rows_that_are_left_with_next_to_nothing():
    """Of problem 42 a row keeps 1e-9; its derivatives agree with those of 50 digits, once."""
    p = problems.draw(42)
    P = torches.here(*problems.posed(*p.args), p.reg, p.rho).plan
    assert float(P.sum(1).min()) < 1e-8
    truth, found = dense.gradients(p), problems.gradients(p, torches.here)
    for one, other in zip(found["f and g"], truth["f and g"].grads, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11 * scale)
