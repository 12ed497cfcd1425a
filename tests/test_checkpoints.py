"""Checkpoints: what is cut off goes on as if it had not been, and what is wrong is refused."""

import errno
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import start
from ranks import run
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.solve.checkpoints import file


class Cut(Exception):
    """The end of a process, as a callback sees it."""


def cut(sweep: int):
    def told(progress: so.Progress) -> None:
        if progress.n_iter == sweep:
            raise Cut

    return told


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    """What a disk takes to be sure is no concern of these tests."""
    monkeypatch.setattr(file.os, "fsync", lambda number: None)


def often(path: Path) -> so.Checkpoint:
    return so.Checkpoint(path, seconds=0)


def same(one: so.Transport, other: so.Transport) -> None:
    """To the last bit."""
    for name in ("f", "g", "marginal_error", "n_iter", "value"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.statuses, one.method) == (other.statuses, other.method)


def resumed(tmp_path: Path, at: int, *args, **options) -> None:
    """Solve, cut off at a sweep and from there, beside a solve that nobody cut."""
    options["on_fail"] = "ignore"
    whole = so.solve(*args, checkpoint=often(tmp_path / "whole"), **options)
    path = tmp_path / "cut"
    try:
        so.solve(*args, checkpoint=often(path), callback=cut(at), **options)
    except Cut:
        same(so.solve(*args, checkpoint=often(path), **options), whole)
    else:
        assert int(whole.n_iter.max()) < at


def cost(n: int = 60, m: int = 40, seed: int = 0) -> Tensor:
    return testing.random(n, m, seed=seed).cost


@dataclass(frozen=True)
class OverRelaxed:
    """An acceleration that only its user knows, and its state."""

    factor: float = 1.3

    def start(self, weight: Tensor) -> "OverRelaxed":
        return self

    def __call__(self, at) -> Tensor:
        return at.psi + self.factor * at.residual

    def select(self, index: Tensor) -> "OverRelaxed":
        return self


PLAIN = so.Sinkhorn(so.Plain(), None)
METHODS = {
    "auto": "auto",
    "anderson": "sinkhorn",
    "newton": "newton",
    "conjugate": so.Sinkhorn(so.Newton(direct=0)),
    "nesterov": so.Sinkhorn(so.Nesterov()),
    "plain": PLAIN,
    "own": so.Sinkhorn(OverRelaxed(), None),
}


@pytest.mark.parametrize("at", [2, 7, 19])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_as_if_nothing_had_been(tmp_path, name, at):
    resumed(tmp_path, at, cost(), reg=0.01, method=METHODS[name], max_iter=100)


def far() -> Tensor:
    g = torch.Generator().manual_seed(3)
    x, y = (torch.rand(k, 2, generator=g, dtype=torch.float64) for k in (300, 260))
    return torch.cdist(x, y).square()


def batch() -> Tensor:
    return torch.stack([s * cost(seed=s) for s in (1, 2, 8, 30)])


def stranded() -> Tensor:
    """Points of which two may use one, which does not take so much."""
    C = cost(3, 3)
    C[:2, 1:] = torch.inf
    return C


LONG = ("a sparse kernel", "near points")
PROBLEMS = {
    "a sparse kernel": lambda: (
        (far(),),
        {"reg": 5e-5, "method": "sinkhorn", "max_iter": 80},
    ),
    "points": lambda: ((so.PointCloud(torch.rand(50, 3), torch.rand(60, 3)),), {"reg": 0.01}),
    "near points": lambda: (
        (so.PointCloud(*torch.rand(2, 3001, 2).double()),),
        {"reg": 1e-3, "max_iter": 60},
    ),
    "single precision": lambda: ((cost().float(),), {"reg": 0.01}),
    "read": lambda: ((so.Streamed(list(cost().split(13))),), {"reg": 0.01}),
    "a grid": lambda: ((so.GridCost((6, 7)),), {"reg": 0.5}),
    "relaxed": lambda: ((cost(),), {"reg": 0.01, "unbalanced": (1.0, 0.3)}),
    "bounded": lambda: ((cost(),), {"reg": 0.01, "unbalanced": so.Between(0.01, 0.03)}),
    "costs": lambda: ((batch(),), {"reg": 0.02}),
    "weights": lambda: ((cost(), None, torch.rand(5, 40).softmax(-1).double()), {"reg": 0.004}),
    "regs": lambda: (
        (cost(), torch.full((3, 60), 1 / 60).double()),
        {"reg": torch.tensor([0.1, 0.01, 0.003]).double()},
    ),
    "no plan": lambda: ((stranded(),), {"reg": 0.1}),
}


@pytest.mark.parametrize(
    ("name", "at"),
    [(name, at) for name in PROBLEMS for at in ((50,) if name in LONG else (5, 30))],
)
def test_every_problem_goes_on_as_if_nothing_had_been(tmp_path, name, at):
    args, options = PROBLEMS[name]()
    torch.manual_seed(0)
    resumed(tmp_path, at, *args, **options)


def test_it_changes_no_answer(tmp_path):
    kept = so.solve(cost(), reg=0.01, checkpoint=tmp_path / "c")
    torch.testing.assert_close(kept.plan, so.solve(cost(), reg=0.01).plan, rtol=0, atol=1e-9)


def test_what_has_ended_is_answered_without_a_sweep(tmp_path):
    path, sweeps = tmp_path / "c", []
    first = so.solve(cost(), reg=0.01, checkpoint=path)
    same(so.solve(cost(), reg=0.01, checkpoint=path, callback=sweeps.append), first)
    assert not sweeps


def test_who_asks_for_more_goes_on(tmp_path):
    """More sweeps, then a finer tolerance: what was made is not made again."""
    few, more = tmp_path / "few", tmp_path / "more"
    asked = {"reg": 0.003, "method": "sinkhorn", "on_fail": "ignore"}
    short = so.solve(cost(), max_iter=20, checkpoint=often(few), **asked)
    assert short.status is so.Status.MAX_ITER
    sweeps = []
    long = so.solve(
        cost(), checkpoint=often(few), callback=lambda p: sweeps.append(p.n_iter), **asked
    )
    assert sweeps[0] == 21
    same(long, so.solve(cost(), checkpoint=often(more), **asked))
    finer = so.solve(cost(), tol=1e-12, checkpoint=often(few), **asked)
    assert float(finer.marginal_error) <= 1e-12
    assert int(finer.n_iter) < int(long.n_iter) + 20


def test_who_is_stopped_loses_no_sweep(tmp_path):
    path = tmp_path / "c"
    stopped = so.solve(
        cost(), reg=0.003, checkpoint=path, callback=lambda p: p.n_iter == 12, on_fail="ignore"
    )
    assert stopped.status is so.Status.STOPPED
    sweeps = []
    on = so.solve(cost(), reg=0.003, checkpoint=path, callback=lambda p: sweeps.append(p.n_iter))
    assert sweeps[0] == 13
    same(on, so.solve(cost(), reg=0.003, checkpoint=tmp_path / "whole"))


KILLED = {"reg": 0.003, "method": PLAIN, "max_iter": 150, "on_fail": "ignore"}


def _slowly(path: str) -> None:
    """Solve in a process of its own, sweep by sweep."""
    torch.set_num_threads(1)

    def told(progress: so.Progress) -> None:
        time.sleep(0.05)

    so.solve(cost(), checkpoint=often(Path(path)), callback=told, **KILLED)


def test_a_process_that_is_killed_goes_on(tmp_path):
    path = tmp_path / "c"
    process = start(_slowly, str(path))
    try:
        written = set()
        while len(written) < 4:
            assert process.is_alive()
            time.sleep(0.005)
            written |= {path.stat().st_mtime_ns} if path.exists() else set()
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.join(30)
    assert process.exitcode == -signal.SIGKILL
    sweeps = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        on = so.solve(
            cost(), checkpoint=often(path), callback=lambda p: sweeps.append(p.n_iter), **KILLED
        )
        whole = so.solve(cost(), checkpoint=often(tmp_path / "whole"), **KILLED)
    finally:
        torch.set_num_threads(threads)
    assert 4 <= sweeps[0] < 150
    same(on, whole)


def kept(path: Path) -> bytes:
    so.solve(cost(), reg=0.01, checkpoint=path)
    return path.read_bytes()


WRONG = {
    "truncated": lambda data: data[:-1],
    "cut within its head": lambda data: data[:40],
    "altered": lambda data: data[:-50] + bytes([data[-50] ^ 1]) + data[-49:],
    "empty": lambda data: b"",
    "another file": lambda data: b"PK\x03\x04 something else",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_not_as_it_was_written_is_refused(tmp_path, name):
    path = tmp_path / "c"
    path.write_bytes(WRONG[name](kept(path)))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint .*/c (is|holds) .*remove it to begin anew"):
        so.solve(cost(), reg=0.01, checkpoint=path)
    assert path.read_bytes() == before


def test_what_would_run_code_is_not_read(tmp_path):
    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    path = tmp_path / "c"
    path.write_bytes(file.sealed({"fingerprint": {}, "bad": Bad()}))
    with pytest.raises(ValueError, match="holds more than numbers"):
        so.solve(cost(), reg=0.01, checkpoint=path)
    assert not (tmp_path / "made").exists()


OTHERS = {
    "shape": ((cost(61),), {}),
    "reg": ((cost(),), {"reg": 0.02}),
    "cost": ((cost(seed=1),), {}),
    "cost,": ((so.Streamed([cost()]),), {}),
    "dtype": ((cost().float(),), {}),
    "weights": ((cost(), torch.arange(1.0, 61).double() / 1830), {}),
    "unbalanced": ((cost(),), {"unbalanced": 1.0}),
    "method": ((cost(),), {"method": "newton"}),
    "init": ((cost(),), {"init": (None, torch.ones(40))}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_file_of_another_problem_is_refused(tmp_path, name):
    path = tmp_path / "c"
    kept(path)
    args, options = OTHERS[name]
    with pytest.raises(ValueError, match=f"of another problem, whose {name.strip(',')} was"):
        so.solve(*args, **{"reg": 0.01, **options}, checkpoint=path)


def test_a_full_disk_loses_neither_the_solve_nor_the_last_file(tmp_path, monkeypatch):
    path = tmp_path / "c"
    with pytest.raises(Cut):
        so.solve(cost(), reg=0.003, checkpoint=often(path), callback=cut(10))
    before = path.read_bytes()

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file.os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="could not be written .No space left") as said:
        r = so.solve(cost(), reg=0.003, checkpoint=often(path))
    assert r.converged
    assert len(said) == 1
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (3, "must be a path or a Checkpoint, got 3"),
        ("", "must be a path or a Checkpoint, got ''"),
        ("/nowhere/at/all", "in a folder that can be written to, got /nowhere/at"),
    ],
)
def test_bad_arguments(checkpoint, message):
    with pytest.raises(ValueError, match=message):
        so.solve(cost(), reg=0.1, checkpoint=checkpoint)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        so.solve(cost(), reg=0.1, checkpoint=tmp_path)


def test_counted_sweeps_are_not_kept(tmp_path):
    with pytest.raises(ValueError, match="checkpoint"):
        so.solve(cost(), reg=0.1, n_iter=3, checkpoint=tmp_path / "c")


SPREAD = """
import contextlib, io, json, pathlib
import numpy as np
from sinkhorn_ot.command import main
folder = pathlib.Path({folder!r})
C = torch.rand(60, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
mine = C[[slice(0, 41), slice(41, 60)][rank]]

def solve(name, at=None):
    def told(progress):
        if progress.n_iter == at:
            raise ValueError("cut")
    kept = so.Checkpoint(folder / name, seconds=0)
    r = so.solve(mine, reg=0.005, callback=told, checkpoint=kept, group=group)
    return [r.f, r.g, r.value, r.n_iter, r.marginal_error]

said["whole"] = solve("whole")
said["refused"] = refused(lambda: solve("cut", 7))
said["cut"] = solve("cut")
said["again"] = solve("cut", 1)

np.save(folder / f"C{{rank}}.npy", C.numpy())
with contextlib.redirect_stdout(io.StringIO()) as out:
    line = f"solve {{folder}}/C{{rank}}.npy --reg 0.005 --out {{folder}}/r.npz --json"
    said["code"] = main(line.split())
said["out"] = out.getvalue()
"""


@pytest.mark.slow(6)
def test_rows_over_ranks_go_on_as_if_nothing_had_been(tmp_path):
    """And the command line spreads the rows of a file."""
    first, second = run(2, SPREAD.format(folder=str(tmp_path)))
    for said in (first, second):
        assert "cut" in said["refused"]
        for name in ("cut", "again"):
            assert all(map(torch.equal, said["whole"], said[name]))
        assert said["code"] == 0
    assert not second["out"]
    g = torch.Generator().manual_seed(0)
    r = so.solve(torch.rand(60, 40, generator=g, dtype=torch.float64), reg=0.005)
    with np.load(tmp_path / "r.npz", allow_pickle=False) as kept:
        torch.testing.assert_close(torch.from_numpy(kept["f"]), r.f, rtol=0, atol=1e-9)
    assert json.loads(first["out"])["value"] == pytest.approx(float(r.value), abs=1e-9)


@pytest.mark.parametrize("held", [True, False])
def test_a_cost_with_any_other_number_is_another_problem(tmp_path, held):
    C = torch.rand(60, 40, dtype=torch.float64)
    other = C.clone()
    other[17, 5] += 1e-9

    def cost(C: Tensor) -> Tensor | so.Streamed:
        return C if held else so.Streamed([C[:20], C[20:]])

    path = tmp_path / "kept"
    first = so.solve(cost(C), reg=0.1, checkpoint=path)
    same(so.solve(cost(C), reg=0.1, checkpoint=path), first)
    with pytest.raises(ValueError, match="is of another problem, whose cost"):
        so.solve(cost(other), reg=0.1, checkpoint=path)


def test_rows_in_another_order_are_the_same_problem(tmp_path):
    C = torch.rand(60, 40, dtype=torch.float64)
    order = torch.randperm(60)
    shuffled = so.Streamed([(order[:25], C[order[:25]]), (order[25:], C[order[25:]])])
    first = so.solve(so.Streamed([C[:20], C[20:]]), reg=0.1, checkpoint=tmp_path / "kept")
    same(so.solve(shuffled, reg=0.1, checkpoint=tmp_path / "kept"), first)
