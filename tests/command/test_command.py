"""The command line: files in, files out, and a number that says how it ended."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.command import main


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """A folder with a cost, weights, clouds and logits."""
    monkeypatch.chdir(tmp_path)
    g = np.random.default_rng(0)
    a, b = g.random(40), g.random(30)
    arrays = {
        "cost": g.random((40, 30)),
        "single": g.random((40, 30), dtype=np.float32),
        "batch": g.random((3, 12, 9)),
        "a": a / a.sum(),
        "b": b / b.sum(),
        "x": g.random((40, 2)),
        "y": g.random((30, 2)),
        "logits": 3 * g.standard_normal((500, 7)),
        "counts": np.array([100, 100, 100, 50, 50, 50, 50]),
        "whole": g.integers(0, 9, (5, 6)),
        "vector": g.random(5),
        "empty": np.zeros((0, 3)),
        "words": np.array([["a", "b"]]),
    }
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    np.save("objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    Path("short.npy").write_bytes(Path("cost.npy").read_bytes()[:-800])
    Path("text.npy").write_text("nothing")


def load(name: str) -> torch.Tensor:
    return torch.from_numpy(np.load(f"{name}.npy"))


def call(line: str) -> int:
    return main(line.split())


def said(capsys, line: str, code: int = 0) -> dict[str, Any]:
    """Return the summary of a command that ends with a code."""
    assert call(f"{line} --json") == code
    out, err = capsys.readouterr()
    assert not err
    return json.loads(out)


def test_a_solve_is_that_of_the_package(capsys):
    told = said(capsys, "solve cost.npy --a a.npy --b b.npy --reg 0.02 --out r.npz --plan")
    r = so.solve(load("cost"), load("a"), load("b"), reg=0.02)
    with np.load("r.npz", allow_pickle=False) as kept:
        for name in ("f", "g", "value", "plan", "marginal_error", "n_iter"):
            assert np.array_equal(kept[name], getattr(r, name).numpy())
    assert told["value"] == float(r.value)
    assert (told["status"], told["out"]) == ("converged", "r.npz")
    assert not [path for path in Path().iterdir() if path.suffix == ".writing"]


CALLS = {
    "stream": ("cost.npy --stream --reg 0.02", lambda: so.solve(load("cost"), reg=0.02)),
    "points": (
        "--points x.npy y.npy --metric euclidean --reg 0.02",
        lambda: so.solve(so.PointCloud(load("x"), load("y"), "euclidean"), reg=0.02),
    ),
    "relaxed": (
        "cost.npy --reg 0.02 --unbalanced 0.5",
        lambda: so.solve(load("cost"), reg=0.02, unbalanced=0.5),
    ),
    "exact": ("cost.npy --exact", lambda: so.solve_exact(load("cost"))),
    "batch": ("batch.npy --reg 0.05", lambda: so.solve(load("batch"), reg=0.05)),
    "whole": ("whole.npy --reg 1", lambda: so.solve(load("whole").double(), reg=1.0)),
    "double": (
        "single.npy --dtype float64 --reg 0.02",
        lambda: so.solve(load("single").double(), reg=0.02),
    ),
    "single": (
        "cost.npy --dtype float32 --reg 0.02",
        lambda: so.solve(load("cost").float(), reg=0.02),
    ),
    "kept": ("cost.npy --reg 0.02 --checkpoint c", lambda: so.solve(load("cost"), reg=0.02)),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_can_be_asked(capsys, name):
    line, call = CALLS[name]
    told = said(capsys, f"solve {line}")
    assert torch.allclose(torch.tensor(told["value"]).double(), call().value.double(), rtol=1e-6)


def test_a_solve_that_is_kept_is_answered_again(capsys):
    line = "solve cost.npy --reg 0.02 --checkpoint c"
    assert said(capsys, line)["value"] == said(capsys, line)["value"]
    Path("c").write_bytes(Path("c").read_bytes()[:-3])
    assert call(line) == 2
    assert "checkpoint c is truncated" in capsys.readouterr().err


def test_how_it_ended_is_the_code(capsys):
    assert said(capsys, "solve cost.npy --reg 0.001 --max-iter 2", code=3)["n_iter"] == 2
    np.save(
        "none.npy",
        np.where(np.arange(9).reshape(3, 3) % 3 * (np.arange(3) < 2)[:, None], np.inf, 1.0),
    )
    assert said(capsys, "solve none.npy --reg 0.1", code=5)["status"] == "infeasible"
    far = said(capsys, "labels logits.npy --tol 1e-12 --max-iter 1", code=3)
    assert far["status"] == "max_iter"


def test_it_is_said_in_words_too(capsys):
    assert call("solve batch.npy --reg 0.001 --max-iter 1") == 3
    out = capsys.readouterr().out
    assert "status          max_iter" in out
    assert "raise max_iter" in out


@pytest.mark.parametrize("end", ["npy", "npz"])
def test_labels_are_those_of_the_package(capsys, end):
    told = said(capsys, f"labels logits.npy --lamb 10 --out l.{end} --checkpoint c")
    want = so.sela_labels(load("logits"), lamb=10.0)
    found = np.load(f"l.{end}", allow_pickle=False)
    labels = found if end == "npy" else found["labels"]
    assert np.array_equal(labels, want.labels.numpy())
    assert told["counts"] == want.counts.tolist()


def test_labels_by_counts_and_by_codes(capsys):
    assert (
        sorted(said(capsys, "labels logits.npy --counts balanced")["counts"]) == [71] * 4 + [72] * 3
    )
    told = said(capsys, "labels logits.npy --counts counts.npy --out l.npz")
    assert told["counts"] == load("counts").tolist()
    assert told["value"] == float(so.balanced_labels(load("logits"), load("counts")).value)
    told = said(capsys, "labels logits.npy --method swav --lamb 20 --out l.npy")
    want = so.swav_codes(load("logits"), eps=0.05).argmax(-1)
    assert np.array_equal(np.load("l.npy"), want.numpy())


@pytest.mark.skipif(not find_spec("pyarrow"), reason="pyarrow is not installed")
def test_labels_in_columns(capsys):
    from pyarrow import parquet

    said(capsys, "labels logits.npy --out l.parquet")
    column = parquet.read_table("l.parquet")["labels"].to_numpy()
    assert np.array_equal(column, so.sela_labels(load("logits")).labels.numpy())


BAD = {
    "solve --reg 1": "give a file of costs, or two of points",
    "solve cost.npy --points x.npy y.npy --reg 1": "and not both",
    "solve cost.npy": "give --reg, or --exact",
    "solve cost.npy --reg 1 --exact": "give --reg, or --exact",
    "solve cost.npy --exact --unbalanced 1": "--unbalanced must not be given with --exact",
    "solve cost.npy --reg 1 --plan": "--plan must be given with --out",
    "solve none.npy --reg 1": "cost must be a file that is there, got none.npy",
    "solve objects.npy --reg 1": "cost objects.npy must be numbers as numpy.save writes them",
    "solve short.npy --reg 1": "cost short.npy must be numbers as numpy.save writes them",
    "solve text.npy --reg 1": "cost text.npy must be numbers as numpy.save writes them",
    "solve words.npy --reg 1": "must hold numbers, got dtype",
    "solve vector.npy --reg 1": r"must have 2 or 3 dimensions, got shape \(5,\)",
    "solve empty.npy --reg 1": r"got shape \(0, 3\)",
    "solve cost.npy --a b.npy --reg 1": "--a b.npy must hold 40 numbers, got 30",
    "solve cost.npy --a x.npy --reg 1": "must have 1 dimension,",
    "solve cost.txt --reg 1": "cost must be a .npy file",
    "solve cost.npy --reg 1 --out r.npy": "--out must end in .npz",
    "solve cost.npy --reg 1 --out no/r.npz": "--out must be in a folder that can be written to",
    "solve cost.npy --reg 1 --checkpoint no/c": "checkpoint must be in a folder",
    "labels logits.npy --counts counts.npy --marginal b.npy": "--counts must not be given with",
    "labels logits.npy --method swav --checkpoint c": "for SeLa's labels only",
    "labels logits.npy --marginal b.npy": "--marginal b.npy must hold 7 numbers, got 30",
    "labels logits.npy --out l.csv": "--out must end in .npy or .npz or .parquet",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_ends_with_two_and_says_why(capsys, line):
    assert call(line) == 2
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert re.search(BAD[line], err)


@pytest.mark.parametrize(
    "line", ["", "solve cost.npy --reg 0", "solve cost.npy --reg x", "labels", "labels a b", "what"]
)
def test_a_line_that_cannot_be_read_is_left_to_argparse(capsys, line):
    with pytest.raises(SystemExit) as ended:
        call(line)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_what_is_written_is_whole_or_not_there(capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    Path("r.npz").write_bytes(b"before")
    monkeypatch.setattr(np, "savez", full)
    assert call("solve cost.npy --reg 1 --out r.npz") == 2
    assert "No space left" in capsys.readouterr().err
    assert Path("r.npz").read_bytes() == b"before"
    assert not Path("r.npz.writing").exists()


def test_an_interrupt_says_that_it_goes_on(capsys, monkeypatch):
    def cut(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(so, "solve", cut)
    assert call("solve cost.npy --reg 1 --checkpoint c") == 130
    assert "the same call goes on from its checkpoint" in capsys.readouterr().err


def shell(command: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command.split()],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.slow(3)
def test_a_shell_gets_the_code_and_the_summary():
    done = shell("sinkhorn_ot solve cost.npy --reg 0.001 --max-iter 2 --json --threads 1")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["status"] == "max_iter"


@pytest.mark.slow(12)
def test_rows_of_a_file_are_spread_over_the_processes_of_torchrun():
    start = "torch.distributed.run --standalone --nproc-per-node 2 -m sinkhorn_ot"
    done = shell(f"{start} labels logits.npy --out l.npy --checkpoint c --json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "converged"
    assert np.array_equal(np.load("l.npy"), so.sela_labels(load("logits")).labels.numpy())
    assert {path.name for path in Path().glob("c.rank-?")} == {"c.rank-0", "c.rank-1"}
