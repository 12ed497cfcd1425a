"""Streams are read one block ahead, and their faults come out where they happened."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot.problem import as_rows
from sinkhorn_ot.problem.rows import ahead


def cost(n: int = 60, m: int = 20) -> Tensor:
    return torch.rand(n, m, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not [t for t in threading.enumerate() if t.name == "sinkhorn_ot reads ahead"]


def test_the_next_block_is_read_while_one_is_worked_on():
    asked = [threading.Event() for _ in range(6)]

    def read():
        for k, block in enumerate(cost().split(10)):
            asked[k].set()
            yield block

    for k, (index, _) in enumerate(as_rows("cost", read)):
        assert index.start == 10 * k
        # who has not been read ahead is never asked for
        assert all(event.wait(30) for event in asked[: k + 2])


def test_it_is_one_block_and_no_more():
    read = []

    def blocks():
        for k in range(50):
            read.append(k)
            yield k

    items = ahead(blocks())
    for k in range(5):
        assert next(items) == k
    time.sleep(0.05)
    assert len(read) <= 5 + 1
    items.close()
    assert len(read) <= 5 + 1


def test_order_and_numbers_are_those_of_the_source():
    assert list(ahead(iter(range(1000)))) == list(range(1000))
    assert list(ahead(iter(()))) == []
    assert list(ahead(iter([7]))) == [7]


def test_what_is_not_worth_it_has_no_thread():
    threads = set()

    def items():
        for k in range(3):
            threads.add(threading.get_ident())
            yield k

    assert list(ahead(items(), lambda first: first > 0)) == [0, 1, 2]
    assert threads == {threading.get_ident()}


def test_the_reader_has_the_modes_of_who_asks():
    def items():
        for _ in range(3):
            yield torch.is_grad_enabled()

    with torch.no_grad():
        assert list(ahead(items())) == [False] * 3
    assert list(ahead(items())) == [True] * 3


class Broken:
    """A stream that raises in the middle of a pass."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.passes, self.at, self.error = 0, at, error

    def __iter__(self):
        self.passes += 1
        for k, block in enumerate(cost().split(10)):
            if self.passes == self.at and k == 3:
                raise self.error
            yield block


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyError("x"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", [1, 2])
def test_what_a_stream_raises_is_raised(at, error):
    with pytest.raises(type(error)) as caught:
        so.solve(so.Streamed(Broken(at, error)), reg=0.05)
    assert caught.value is error


def test_a_label_solve_raises_it_too():
    with pytest.raises(OSError, match="gone"):
        so.sela_labels(Broken(3, OSError("the disk is gone")))


class Changing:
    """A stream whose later passes are others."""

    def __init__(self, *passes) -> None:
        self.passes = iter(passes)

    def __iter__(self):
        return iter(next(self.passes))


LATER = {
    "fewer": lambda: list(cost(50).split(10)),
    "more": lambda: list(cost(70).split(10)),
    "wider": lambda: list(cost(60, 21).split(10)),
    "none": list,
    "numbers": lambda: [(torch.arange(60) + 1, cost())],
}


@pytest.mark.parametrize("name", LATER)
def test_a_stream_that_changes_is_told(name):
    C = so.Streamed(Changing(list(cost().split(10)), LATER[name]()))
    with pytest.raises(ValueError, match="source must give the same rows at every pass"):
        so.solve(C, reg=0.05)


def test_a_solve_that_is_cut_leaves_no_thread(tmp_path):
    np.save(tmp_path / "C.npy", cost(4000, 300).numpy())

    def cut(progress: so.Progress) -> None:
        raise RuntimeError("cut")

    C = so.Streamed(np.load(tmp_path / "C.npy", mmap_mode="r"))
    with pytest.raises(RuntimeError, match="cut"):
        so.solve(C, reg=0.05, callback=cut)
    blocks = C.tiles(10)
    next(blocks)
    blocks.close()


def test_progress_shows_how_far_a_pass_is_and_what_is_left(tmp_path, capfd, monkeypatch):
    # as if it had too many entries for a kernel to be held
    monkeypatch.setattr("sinkhorn_ot.problem.costs.streamed.MEMORY", 0)
    for act in (
        lambda S: so.solve(so.Streamed(S), reg=0.05, progress=True),
        lambda S: so.sela_labels(S, progress=True),
    ):
        act(lambda: iter(cost().split(10)))
        err = capfd.readouterr().err
        assert "digits" in err
        assert "pass:" in err
        assert "/60.0 [" in err
    so.solve(cost(), reg=0.05, progress=True)
    assert "pass:" not in capfd.readouterr().err
