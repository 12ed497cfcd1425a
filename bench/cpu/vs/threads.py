"""Two threads beside one, on the calls of `memory` at their size and at a small one, by the clock.

It needs two idle cores, and looks whether it has them: on a busy machine it says so, and measures
nothing but what --only names. A ratio is the time of one thread over that of two.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from bench.cpu.measure import clock
from bench.cpu.vs import memory
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_threads"
# seconds of turns of one case and their largest number; seconds of looking, and cores that are two
_SPENT, _MOST, _LOOK, _TWO = 3.0, 100, 1.0, 1.9


def idle_cores() -> float:
    """Return how many cores of those we may use did nothing while we looked."""
    cores = {f"cpu{k}" for k in os.sched_getaffinity(0)}

    def waited() -> int:
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        # idle, and waiting for a disk
        return sum(int(line[4]) + int(line[5]) for line in lines if line and line[0] in cores)

    before = waited()
    time.sleep(_LOOK)
    return (waited() - before) / os.sysconf("SC_CLK_TCK") / _LOOK


def on(threads: int, act: Callable[[], Any]) -> float:
    """Return the seconds of an act on so many threads."""
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        return clock(act)


def cell(case: str, of: str, small: bool) -> Row:
    """Return one row."""
    act = memory.CASES[of](small)[memory.OURS]
    seconds = {threads: [on(threads, act)] for threads in (1, 2)}
    turns = int(_SPENT / (seconds[1][0] + seconds[2][0]))
    # the first turn also warms up
    for _ in range(min(_MOST, max(3, turns))):
        for threads, found in seconds.items():
            found.append(on(threads, act))
    one, two = (statistics.median(found[1:]) for found in seconds.values())
    return Row(FAMILY, case, "one thread", two, one)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for of in memory.CASES:
        for small in (True, False):
            case = f"{of}, a small one" if small else of
            yield Cell(case, partial(cell, case, of, small))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    idle = idle_cores()
    if idle < _TWO:
        print(f"two idle cores are needed, {idle:.1f} are")
        if options.only is None:
            return 0
    return measure(FAMILY, cells(), options)
