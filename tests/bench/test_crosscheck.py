"""The cross-check of the benchmarks on fewer problems, and that it can fail."""

import pytest

from bench import __main__ as bench
from bench.cpu import crosscheck


@pytest.mark.slow(1)
@pytest.mark.parametrize("method", ["auto", "sinkhorn", "newton"])
def test_every_error_is_small(method):
    worst = crosscheck.crosscheck(24, method)
    assert max(worst) < crosscheck.LIMIT, worst


def test_a_wrong_answer_fails(monkeypatch, capsys):
    few = ["crosscheck", "--problems", "2", "--method", "auto"]
    assert bench.main(few) == 0
    monkeypatch.setattr(crosscheck, "LIMIT", 1e-17)
    assert bench.main(few) == 1
    assert "FAILED" in capsys.readouterr().out
