"""The same lines by POT and by this package, which takes POT's calls: answers and times."""

import argparse
import time
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import ot as pot

import sinkhorn_ot.compat.pot as ours


def lines(ot: ModuleType, n: int) -> dict[str, Callable[[], Any]]:
    """Return some calls as code has them; `ot` is either module."""
    random = np.random.default_rng(0)
    x, y = random.random((n, 2)), random.random((n, 2)) + 0.2
    a, b, M = ot.unif(n), ot.unif(n), ot.dist(x, y)
    A = np.exp(-((np.arange(n)[:, None] / n - np.array([0.3, 0.7])) ** 2) / 0.01)
    line = ot.dist(np.arange(n)[:, None] / n)
    return {
        "emd2(a, b, M)": lambda: ot.emd2(a, b, M),
        "sinkhorn2(a, b, M, 0.1)": lambda: ot.sinkhorn2(a, b, M, 0.1),
        "sinkhorn2(a, b, M, 0.005)": lambda: ot.sinkhorn2(a, b, M, 0.005, numItermax=20_000),
        "sinkhorn_unbalanced2(a, b, M, 0.1, 1)": lambda: ot.sinkhorn_unbalanced2(a, b, M, 0.1, 1),
        "partial.partial_wasserstein2(a, b, M, 0.5)": lambda: ot.partial.partial_wasserstein2(
            a, b, M, 0.5
        ),
        "solve(M, a, b, reg=0.1).value": lambda: ot.solve(M, a, b, reg=0.1).value,
        "barycenter(A, line, 0.001), its middle": lambda: ot.bregman.barycenter(
            A / A.sum(0), line, 0.001, stopThr=1e-9
        )[n // 2],
        "wasserstein_1d(x[:, 0], y[:, 0], p=2)": lambda: ot.wasserstein_1d(x[:, 0], y[:, 0], p=2),
    }


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Return what a call finds, and its seconds: the least of three."""
    took = []
    for _ in range(3):
        start = time.perf_counter()
        found = float(call())
        took.append(time.perf_counter() - start)
    return found, min(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=300)
    options = parser.parse_args()

    # POT says where it did not converge
    warnings.simplefilter("ignore")
    theirs, here = (lines(ot, options.points) for ot in (pot, ours))
    print(f"{options.points} points{'POT':>45}{'here':>11}{'apart':>10}{'POT':>11}{'here':>11}")
    worst = 0.0
    for name, call in theirs.items():
        (one, slow), (other, fast) = timed(call), timed(here[name])
        apart = abs(one - other) / abs(other)
        worst = max(worst, apart)
        print(
            f"{name:<44}{one:11.7f}{other:11.7f}{apart:10.0e}{slow * 1e3:8.2f} ms"
            f"{fast * 1e3:8.2f} ms"
        )
    print(f"all agree to 1e-4: {worst < 1e-4}")


if __name__ == "__main__":
    main()
