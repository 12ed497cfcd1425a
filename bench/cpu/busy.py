"""Tiny problems while others keep every core busy: two threads beside one, by the clock.

A thread that waits for another waits until that has a turn of a core. Blocks of both are made in
turn, and fails if two threads take more than half as long again in the median. What a process takes
at first, to import the package and to call it once, is measured on cores that nobody keeps busy.
"""

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import sinkhorn_ot as so
from bench import ROOT
from bench.cpu.measure import THREADS, clock, save


CALLS, BLOCK, MOST = 200, 20, 1.5
FIRST = """
import time
import torch
start = [time.perf_counter()]
import sinkhorn_ot as so
C, a = torch.rand(20, 20, dtype=torch.float64), torch.rand(20, dtype=torch.float64)
calls = (
    lambda: so.solve(C, reg=0.01),
    lambda: so.solve_exact(C, a / a.sum()),
    lambda: so.solve_exact(C),
)
start.append(time.perf_counter())
for call in calls:
    call()
    start.append(time.perf_counter())
print(*(after - before for before, after in zip(start, start[1:])))
"""


def cases() -> dict[str, Callable[[torch.Tensor], Any]]:
    """Return what is called, by its name and its size."""
    return {
        "solve 20": lambda C: so.solve(C, reg=0.01),
        "solve 50": lambda C: so.solve(C, reg=0.01),
        "solve_exact 20": so.solve_exact,
    }


@contextlib.contextmanager
def busy() -> Iterator[int]:
    """Keep as many processes running as we may use cores."""
    cores = len(os.sched_getaffinity(0))
    loop = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(loop) for _ in range(cores)]
    try:
        yield cores
    finally:
        for other in others:
            other.kill()
            other.wait()


def measured(case: str, call: Callable[[torch.Tensor], Any]) -> list[dict[str, Any]]:
    """Return the rows of a case: one thread and two, in milliseconds."""
    n = int(case.split()[1])
    rng = torch.Generator().manual_seed(0)
    costs = torch.rand(CALLS, n, n, generator=rng, dtype=torch.float64)
    found: dict[int, list[float]] = {1: [], 2: []}
    call(costs[0])
    with busy() as cores:
        for start in range(0, CALLS, BLOCK):
            for threads, took in found.items():
                torch.set_num_threads(threads)
                with threadpool_limits(threads):
                    took += [1e3 * clock(lambda C=C: call(C)) for C in costs[start : start + BLOCK]]
    return [
        {
            "case": case,
            "threads": threads,
            "busy": cores,
            "median": float(np.median(took)),
            "p99": float(np.quantile(took, 0.99)),
        }
        for threads, took in found.items()
    ]


def first() -> dict[str, float]:
    """Return what a process takes at first, in milliseconds, the median of five."""
    free = {name: value for name, value in os.environ.items() if name not in THREADS}
    command = [sys.executable, "-c", FIRST]
    runs = [
        subprocess.run(command, cwd=ROOT, env=free, capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    took = 1e3 * np.median([[float(x) for x in run.stdout.split()] for run in runs], 0)
    names = (
        "import after torch",
        "first solve",
        "first solve_exact",
        "first solve_exact of even weights",
    )
    return dict(zip(names, took.tolist(), strict=True))


def main(_: argparse.Namespace) -> int:
    """Print and save every row; return 1 if two threads are slow beside one."""
    told = first()
    print(told, flush=True)
    rows, failed = [], 0
    for case, call in cases().items():
        one, two = measured(case, call)
        failed += two["median"] > MOST * one["median"]
        print(one, two, sep="\n", flush=True)
        rows += [one, two]
    rows += [{"case": name, "median": took} for name, took in told.items()]
    print("written to", save("busy", rows).name)
    return int(failed > 0)
