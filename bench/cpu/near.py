"""Prints what solves of many points in few dimensions take: seconds, and peak memory."""

import argparse
import json
import resource
import time
from typing import Any

import torch

import sinkhorn_ot as so
from bench.cpu.measure import alone, save


# points a side, dimensions, reg beside a squared side of the cube, and error to reach
CASES = (
    (10_000, 2, 1e-3, 1e-9),
    (10_000, 2, 1e-4, 1e-9),
    (100_000, 2, 1e-4, 1e-9),
    (100_000, 2, 1e-5, 1e-9),
    (100_000, 2, 1e-6, 1e-9),
    (10_000, 3, 1e-3, 1e-3),
    (100_000, 3, 1e-3, 1e-3),
    (1_000_000, 3, 1e-3, 1e-3),
)


def measured(n: int, d: int, reg: float, tol: float) -> dict[str, Any]:
    """Return one row: uniform clouds in the unit cube, in float64."""
    x, y = torch.rand(2, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.thread_time()
    r = so.solve(so.PointCloud(x, y), reg=reg, tol=tol, on_fail="ignore")
    seconds = time.thread_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "n": n,
        "d": d,
        "reg": reg,
        "tol": tol,
        "seconds": seconds,
        "peak_mb": peak / 1024,
        "status": r.status.name,
        "n_iter": int(r.n_iter),
        "marginal_error": float(r.marginal_error),
        "dropped": float(r.dropped),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> None:
    """Run every case."""
    torch.set_num_threads(1)
    if options.one:
        n, d, reg, tol = options.one
        print(json.dumps(measured(int(n), int(d), float(reg), float(tol))))
        return
    save("near", [alone("near", *case) for case in CASES])
