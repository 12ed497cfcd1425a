"""Solves random problems in float64 and compares with a dense fixed point found by other means.

`sinkhorn_ot.testing.judge` shares no code with the solver and leaves marginal errors about 1e-14.
The solver is asked for a marginal error of 1e-12: what is left in the plan is larger by the
problem's condition, and must stay below 1e-8. Prints the worst of each error; fails above it.
"""

import argparse
from typing import NamedTuple

import numpy as np
import torch

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.solvers import MethodName


LIMIT = 1e-8


class Errors(NamedTuple):
    """Absolute errors; weights have total one and costs lie in [0, 1].

    Attributes:
        plan: L1 distance of the plan from the judge's.
        rows: L1 distance of the row sums from a.
        columns: L1 distance of the column sums from b.
        value: Distance of the objective from the judge's.
    """

    plan: float
    rows: float
    columns: float
    value: float


def draw(k: int) -> testing.Random:
    """Problem k: n, m in 1..60, reg in 1e-3..1e1, zero weights in every third."""
    rng = np.random.default_rng(k)
    n, m = (int(size) for size in rng.integers(1, 61, 2))
    return testing.random(n, m, float(10 ** rng.uniform(-3, 1)), zeros=k % 3 == 0, seed=k)


def errors(p: testing.Random, method: MethodName) -> Errors:
    """Solve a problem, whatever it takes, and compare."""
    truth = testing.judge(p.cost, p.a, p.b, p.reg)
    r = so.solve(p.cost, p.a, p.b, p.reg, method=method, tol=1e-12, max_iter=100_000)
    return Errors(
        float((r.plan - truth.plan).abs().sum()),
        float((r.plan.sum(1) - p.a).abs().sum()),
        float((r.plan.sum(0) - p.b).abs().sum()),
        abs(float(r.value) - truth.value),
    )


def crosscheck(problems: int, method: MethodName = "auto") -> Errors:
    """Return the worst of each error over so many problems."""
    found = [errors(draw(k), method) for k in range(problems)]
    return Errors(*(max(column) for column in zip(*found, strict=True)))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--method", nargs="+", default=["auto", "sinkhorn"])


def main(options: argparse.Namespace) -> int:
    """Print the worst errors; return 1 if one is too large."""
    torch.set_num_threads(1)
    failed = False
    for method in options.method:
        worst = crosscheck(options.problems, method)
        failed |= not max(worst) < LIMIT
        told = ", ".join(f"{name} {error:.1e}" for name, error in worst._asdict().items())
        print(f"{options.problems} problems, method {method!r}, worst errors: {told}")
    print(f"{'FAILED: not every' if failed else 'every'} error is below {LIMIT:g}")
    return int(failed)
