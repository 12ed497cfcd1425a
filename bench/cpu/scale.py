"""Prints how cost grows with size: the fixed part, seconds per pair, and clouds unformed."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch

import sinkhorn_ot as so
from bench.cpu.cases import dense, uniform
from bench.cpu.judge import judged
from bench.cpu.measure import alone, clock, save


SIZES = (1000, 2000, 4000, 8000)
CLOUDS = (10_000, 50_000)
ERROR = 1e-6
# points a side of the smallest problem, and its sweeps in NumPy that a solve is held against
SMALL, SWEEPS = 30, 50
# what a process that has torch pays once
FRESH = """
from time import perf_counter as now
import torch
C = torch.rand(30, 30, dtype=torch.float64)
start = now()
import sinkhorn_ot
there = now()
sinkhorn_ot.solve(C, reg=0.1)
print(there - start, now() - there)
"""


def fixed(n: int) -> dict[str, Any]:
    """Return one row: a small problem at reg 1e-1 beside bare sweeps; import and first call."""
    case = dense("points", n)
    C, a, b = case.C.numpy(), case.a.numpy(), case.b.numpy()

    def act() -> so.Transport:
        return so.solve(case.C, case.a, case.b, 1e-1)

    def bare() -> None:
        K = np.exp(-C / 1e-1)
        x = np.ones(n)
        for _ in range(SWEEPS):
            x = b / ((a / (K @ x)) @ K)

    command = [sys.executable, "-c", FRESH]
    fresh = subprocess.run(command, capture_output=True, text=True, check=True)
    imported, first = (float(x) for x in fresh.stdout.split())
    turns = [(clock(act), clock(bare)) for _ in range(300)]
    ours, theirs = (statistics.median(t) for t in zip(*turns, strict=True))
    return {
        "case": "fixed",
        "n": n,
        "seconds": ours,
        "first_call": first,
        "import": imported,
        "bare_sweeps": theirs,
        "times_bare": ours / theirs,
    }


def matrix(n: int) -> dict[str, Any]:
    """Return one row: points in the unit square at reg 1e-2, to an error of 1e-6."""
    case = dense("points", n)

    def act() -> so.Transport:
        return so.solve(case.C, case.a, case.b, 1e-2, tol=0.9 * ERROR)

    error, _ = judged(case, 1e-2, act().plan, None)
    seconds = [clock(act) for _ in range(3)]
    return {
        "case": "matrix",
        "n": n,
        "seconds": min(seconds),
        "ns_per_pair": 1e9 * min(seconds) / n**2,
        "error": error,
    }


def clouds(n: int) -> dict[str, Any]:
    """Return one row: float32 clouds in three dimensions, reg a tenth of the spread, to 1e-3."""
    import resource

    x, y = torch.rand(2, n, 3, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    r = so.solve(so.PointCloud(x, y), reg=0.3, tol=1e-3)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "case": "clouds",
        "n": n,
        "seconds": seconds,
        "ns_per_pair": 1e9 * seconds / n**2,
        "total_mb": peak / 1024,
        "error": _error(r, x, y),
    }


def _error(r: so.Transport, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the L1 error of both marginals in float64, a block of rows at a time."""
    f, g, n = r.f.double(), r.g.double(), len(x)
    weight = uniform(n, 0)[0]
    off, columns = 0.0, torch.zeros(n, dtype=torch.float64)
    for at in range(0, n, 500):
        C = (x[at : at + 500, None].double() - y[None].double()).square().sum(-1)
        P = torch.exp((f[at : at + 500, None] + g - C) / 0.3) * weight * weight
        off += float((P.sum(1) - weight).abs().sum())
        columns += P.sum(0)
    return off + float((columns - weight).abs().sum())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> None:
    """Run every size."""
    torch.set_num_threads(1)
    if options.one:
        what, n = options.one
        print(json.dumps({"fixed": fixed, "matrix": matrix, "clouds": clouds}[what](int(n))))
        return
    cases = [("fixed", SMALL)]
    cases += [("matrix", n) for n in SIZES] + [("clouds", n) for n in CLOUDS]
    save("scale", [alone("scale", *case) for case in cases])
