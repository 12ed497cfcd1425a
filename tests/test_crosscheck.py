"""The cross-check of the benchmarks on fewer problems, and that it can fail."""

import importlib.util
import sys
from pathlib import Path

import pytest


_PATH = Path(__file__).parents[1] / "bench" / "crosscheck.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("crosscheck", _PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow(1)
@pytest.mark.parametrize("method", ["auto", "sinkhorn", "newton"])
def test_every_error_is_small(script, method):
    worst = script.crosscheck(24, method)
    assert max(worst) < script.LIMIT, worst


def test_a_wrong_answer_fails(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["crosscheck", "--problems", "2", "--method", "auto"])
    assert script.main() == 0
    monkeypatch.setattr(script, "LIMIT", 1e-17)
    assert script.main() == 1
    assert "FAILED" in capsys.readouterr().out
