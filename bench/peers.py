"""Other solvers behind one signature: a case and its reg give a function that solves it."""

from collections.abc import Callable

import numpy as np
import ot
from cases import Case
from measure import marginal_error


def pot_to(case: Case, reg: float, error: float) -> tuple[Callable[[], np.ndarray], float]:
    """Return POT's Sinkhorn at the loosest threshold whose plan is measured within `error`.

    POT stops on the L2 error of one marginal, so the threshold that reaches an L1 error is found
    by trying, outside the clock.
    """
    a, b, C = case.a.numpy(), case.b.numpy(), case.C.numpy()

    def run(stop: float) -> np.ndarray:
        return np.asarray(ot.sinkhorn(a, b, C, reg, numItermax=100_000, stopThr=stop, warn=False))

    reached = float("inf")
    for stop in (error, error / 3, error / 10, error / 30, error / 100, error / 1000):
        reached = marginal_error(run(stop), case.a, case.b)
        if reached <= error:
            break
    return lambda: run(stop), reached


def pot_loop(case: Case, reg: float, stop: float) -> Callable[[], list[np.ndarray]]:
    """Return a loop of POT's Sinkhorn over a batch, each problem stripped of its zero weights."""
    C = case.C.numpy()

    def run() -> list[np.ndarray]:
        plans = []
        for a, b in zip(case.a.numpy(), case.b.numpy(), strict=True):
            rows, columns = a > 0, b > 0
            part = C[np.ix_(rows, columns)]
            P = np.zeros_like(C)
            P[np.ix_(rows, columns)] = ot.sinkhorn(
                a[rows], b[columns], part, reg, numItermax=100_000, stopThr=stop, warn=False
            )
            plans.append(P)
        return plans

    return run
