"""Prints what comes of hard problems: twelve families at four regs, and what is said of each.

A solve may take `CAP` iterations, and no more than `CAP` times 200 products with the kernel, which
is what one Newton step may spend on its conjugate gradients. Fails if something called converged
is not, by code outside the package, or if a number is not finite.
"""

import argparse
import time
from typing import Any

import torch

import sinkhorn_ot as so
from bench.cpu.families import FAMILIES
from bench.cpu.judge import judged
from bench.cpu.measure import save


REGS = (1e-2, 1e-3, 1e-4, 1e-5)
TOL = 1e-8
CAP = 10_000


def stressed(family: str, n: int, reg: float, cap: int = CAP) -> dict[str, Any]:
    """Solve one problem and return what is said, and what is true."""
    case = FAMILIES[family](n)
    start = time.perf_counter()
    r = so.solve(case.C, case.a, case.b, reg, tol=TOL, max_iter=cap, on_fail="ignore")
    seconds = time.perf_counter() - start
    error, _ = judged(case, reg, r.plan, None)
    return {
        "family": family,
        "reg": reg,
        "method": r.method,
        "status": r.status.name,
        "said_error": float(r.marginal_error),
        "error": error,
        "n_iter": int(r.n_iter),
        "seconds": seconds,
    }


def wrong(row: dict[str, Any]) -> bool:
    """Say whether a row is not finite, or called converged and is not."""
    # the two sums are rounded in another order
    return not row["error"] < (1.01 * TOL if row["status"] == "CONVERGED" else 3)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("-n", type=int, default=300, help="points; only 300 is saved")


def main(options: argparse.Namespace) -> int:
    """Print and save every row; return 1 if one is wrong."""
    torch.set_num_threads(1)
    rows = []
    for family in FAMILIES:
        for reg in REGS:
            row = stressed(family, options.n, reg)
            rows.append(row)
            print(
                f"{family:20s} reg {reg:<6g} {row['status']:10s} error {row['error']:.1e}  "
                f"{row['n_iter']:6d} iterations {row['seconds']:7.3f} s  {row['method']}"
                f"{'  WRONG' if wrong(row) else ''}",
                flush=True,
            )
    reached = sum(row["error"] <= TOL for row in rows)
    print(f"{reached} of {len(rows)} reach {TOL:g}; {sum(map(wrong, rows))} wrong")
    if options.n == 300:
        save("stress", rows)
    return int(any(map(wrong, rows)))
