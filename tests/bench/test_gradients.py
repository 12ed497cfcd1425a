"""The comparison of derivatives on fewer problems, its judge, and that it can fail."""

import pytest
import torch

from bench import __main__ as bench
from bench.cpu.gradients import dense, problems, run, torches

from .digits import by_cost


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


# how far the judge may be off: of 9 the derivative is a rest of its terms, of 42 a row keeps 1e-9
JUDGED = {("plan", 9): 1e-7, ("plan", 42): 1e-12, ("f and g", 42): 1e-12, ("f and g", 12): 1e-12}


@pytest.mark.slow(1)
@pytest.mark.parametrize(("number", "k"), JUDGED)
def test_the_judge_is_right_to_its_last_digits(number, k):
    p = problems.draw(k)
    truth, found = by_cost(p, number), dense.gradients(p)[number]
    scale = float(truth.abs().max())
    limit = JUDGED[number, k]
    torch.testing.assert_close(found.grads[0], truth, rtol=0, atol=limit * scale)
    here = problems.gradients(p, torches.here)[number][0]
    torch.testing.assert_close(here, truth, rtol=0, atol=limit * scale)
    # relative to what is summed nothing is lost
    assert float((here - truth).abs().max()) < 1e-12 * max(scale, found.terms[0])
