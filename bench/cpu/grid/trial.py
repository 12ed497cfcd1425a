"""One solver on one problem: the seconds to each error, every answer judged outside the clock."""

import statistics
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.cpu.cases import Case, Problem
from bench.cpu.judge import judged
from bench.peers import ALL, Peer
from bench.peers.peer import Prepare, Run


# seconds and runs spent on repeating a short run; a very short one is run more often
_REPEAT, _RUNS = 0.3, 5
_BRIEF, _MANY = 0.05, 50
# plans beyond this are judged by their error alone
_GAP = 10_000_000


@dataclass(frozen=True)
class Started:
    """Word that a clock starts, on the way to an error."""

    error: float


@dataclass(frozen=True)
class Stopped:
    """Word that it has stopped."""


@dataclass(frozen=True)
class Row:
    """What one solver needed for one error.

    Attributes:
        error: L1 error of both marginals to reach.
        status: "reached"; "short", the solver ended before; "wrong", it also called that converged;
            "over", it took longer than it was given; "failed", it raised; "absent", not installed.
        seconds: The median over runs, or what it was given.
        low: The fastest run.
        reached: The error of its plan, measured in float64.
        gap: Primal value of the plan made feasible, less the dual value.
        why: What it raised.
    """

    error: float
    status: str
    seconds: float | None = None
    low: float | None = None
    reached: float | None = None
    gap: float | None = None
    why: str = ""


def trial(
    problem: Problem, name: str, errors: tuple[float, ...]
) -> Iterator[Started | Stopped | Row | Any]:
    """Yield a row for each error, and word of every clock that starts and stops."""
    # one thread for all, peers included
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    peer, case = ALL[name], problem.case()
    if not peer.zeros:
        case = case.stripped()
    prepare = peer.load(case, problem.reg)
    known: dict[float, Row] = {}
    for error in errors:
        row = Row(error, "short")
        for stop in peer.stops(error):
            if stop not in known:
                known[stop] = yield from _timed(prepare, stop, case, problem, error)
            row = known[stop]
            assert row.reached is not None
            if row.reached <= error:
                break
        yield _told(row, error, peer)
        if row.reached is None or row.reached > error:
            return


def _told(row: Row, error: float, peer: Peer) -> Row:
    assert row.reached is not None
    good = row.reached <= error
    status = "reached" if good else "wrong" if row.status == "said" else "short"
    return Row(error, status, row.seconds, row.low, row.reached, row.gap)


def _timed(
    prepare: Prepare, stop: float, case: Case, problem: Problem, error: float
) -> Iterator[Any]:
    """Run to a stop, more than once where that is short and good; return what came of it."""
    run = prepare(stop)
    yield Started(error)
    answer, seconds = _clocked(run)
    yield Stopped()
    plan, g = answer.plan, answer.g() if callable(answer.g) else answer.g
    reached, gap = judged(case, problem.reg, plan, g if problem.size <= _GAP else None)
    said, all_seconds = answer.said, [seconds]
    del answer, plan, g
    while reached <= error and _unsure(all_seconds):
        yield Started(error)
        all_seconds.append(_clocked(run)[1])
        yield Stopped()
    # the first run of a few also warms up
    counted = all_seconds[1:] or all_seconds
    status = "said" if said else "ran"
    return Row(error, status, statistics.median(counted), min(counted), reached, gap)


def _unsure(seconds: list[float]) -> bool:
    """Say whether another run is worth its time."""
    spent, runs = sum(seconds), len(seconds)
    return (spent < _REPEAT and runs < _RUNS) or (spent < _BRIEF and runs < _MANY)


def _clocked(run: Run) -> tuple[Any, float]:
    start = time.perf_counter()
    answer = run()
    return answer, time.perf_counter() - start
