"""Prints how long proved exact plans take beside `ot.emd` and SciPy's matching, on one core.

Single problems and batches, with weights and without; times are the least of several in turn.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import ot
import torch
from scipy.optimize import linear_sum_assignment

import sinkhorn_ot as so
from bench.cpu.measure import clock, save


# batch, sources, targets, dimension of the points (0: independent costs), whether weights are equal
CASES = [
    (1, 25, 25, 2, False),
    (1, 400, 400, 2, False),
    (1, 1000, 1000, 2, True),
    (1, 1000, 1000, 0, True),
    (1, 1000, 1000, 50, False),
    (375, 25, 25, 2, False),
    (375, 25, 25, 0, True),
    (2000, 12, 15, 2, False),
    (20, 300, 300, 2, False),
]


def beside(B: int, n: int, m: int, d: int, equal: bool, runs: int) -> dict[str, Any]:
    """Return one row, and print it."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(B, n, 1, max(d, 1))), rng.normal(size=(B, 1, m, max(d, 1)))
    C = ((x - y) ** 2).sum(-1) if d else rng.random((B, n, m))
    a, b = (np.full((B, k), 1 / k) if equal else rng.dirichlet(np.ones(k), B) for k in (n, m))
    acts: dict[str, Callable[[], Any]] = {
        "ours": lambda: so.solve_exact(C, a, b),
        "emd": lambda: [ot.emd(a[k], b[k], C[k], numItermax=10**8) for k in range(B)],
    }
    if equal and n == m:
        acts["matching"] = lambda: [linear_sum_assignment(C[k]) for k in range(B)]
    best = dict.fromkeys(acts, np.inf)
    for _ in range(runs):
        best = {name: min(best[name], clock(act)) for name, act in acts.items()}
    found = acts["ours"]()
    case = f"{B} x {n} x {m} {f'd={d}' if d else 'independent'} {'equal' if equal else 'weighted'}"
    times = "  ".join(
        f"{name} {t * 1e3:8.2f} ms ({t / best['ours']:.2f}x)" for name, t in best.items()
    )
    print(f"{case:36s} {times}  {found.status.name}", flush=True)
    return {"case": case, "status": found.status.name, **{f"{k}_s": t for k, t in best.items()}}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each, in turn")


def main(options: argparse.Namespace) -> None:
    """Run the table."""
    torch.set_num_threads(1)
    rows = [beside(*case, options.runs) for case in CASES]
    print("written to", save("vs_emd", rows).name)
