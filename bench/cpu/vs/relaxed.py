"""Relaxed marginals beside POT's `sinkhorn_unbalanced` at its best, by the error of the plan.

The truth is our plan at 1e-12, if it satisfies the conditions of the optimum in NumPy. Everyone,
ours too, gets the loosest stop whose plan is as close to it as asked for.
"""

import argparse
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import sinkhorn_ot as so
from bench.cpu.cases import Case, dense
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import Entrant, Run, race
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_relaxed"
RHOS, REGS, SIZES = (0.01, 0.1, 1.0, 10.0), (0.1, 0.01, 0.001), (30, 64, 300, 700)
ERROR = 1e-6
METHODS = ("sinkhorn", "sinkhorn_stabilized", "sinkhorn_translation_invariant")
_STOPS = [ERROR * 10.0**-k for k in range(9)]
_MOST = 1_000_000
Array = np.ndarray[Any, Any]


def truth(case: Case, reg: float, rhos: tuple[float, float]) -> Array:
    """Return the plan, once what an optimum satisfies is seen in NumPy."""
    r = so.solve(case.C, case.a, case.b, reg, unbalanced=rhos, tol=1e-12, on_fail="ignore")
    P, C, a, b = (np.asarray(t) for t in (r.plan, case.C, case.a, case.b))
    off = violation(P, C, a, b, reg, rhos)
    assert off < 1e-2 * ERROR, f"no truth: the optimum is missed by {off:.1e}"
    return P


def violation(
    P: Array, C: Array, a: Array, b: Array, reg: float, rhos: tuple[float, float]
) -> float:
    """Return how far P is from a b^T exp((f + g - C) / reg), f and g those of its marginals.

    A relaxed marginal says what its potential is; an exact one must be met, and its potential is
    what makes it so.
    """
    with np.errstate(divide="ignore"):
        log = -C / reg + np.log(a)[:, None] + np.log(b)
        log = log - (rhos[0] / reg * np.log(P.sum(1) / a))[:, None] if np.isfinite(rhos[0]) else log
        log = log - rhos[1] / reg * np.log(P.sum(0) / b) if np.isfinite(rhos[1]) else log
    for axis, (rho, target) in enumerate(zip(rhos, (a, b), strict=True)):
        if not np.isfinite(rho):
            top = log.max(1 - axis, keepdims=True)
            total = top + np.log(np.exp(log - top).sum(1 - axis, keepdims=True))
            log = log - total + np.expand_dims(np.log(target), 1 - axis)
    return float(np.abs(np.exp(log) - P).sum() / P.sum())


def pot(method: str, case: Case, reg: float, rhos: tuple[float, float], true: Array) -> Entrant:
    """Return one of POT's methods."""
    import ot

    C, a, b = (t.numpy() for t in (case.C, case.a, case.b))

    def prepare(stop: float) -> Run:
        return lambda: ot.unbalanced.sinkhorn_unbalanced(
            a, b, C, reg, rhos, method=method, numItermax=_MOST, stopThr=stop
        )

    return Entrant(f"POT {method}", prepare, partial(off, true), _STOPS, "ot")


def off(true: Array, plan: Any) -> float:
    """Return the error of a plan, relative to the mass of the true one."""
    P = np.asarray(plan)
    return float(np.abs(P - true).sum() / true.sum()) if np.isfinite(P).all() else float("inf")


def cell(case: str, n: int, reg: float, rhos: tuple[float, float]) -> Row | None:
    """Return one row."""
    posed = dense("points", n)
    true = truth(posed, reg, rhos)

    def prepare(stop: float) -> Run:
        options: dict[str, Any] = {"unbalanced": rhos, "tol": stop, "on_fail": "ignore"}
        return lambda: so.solve(posed.C, posed.a, posed.b, reg, **options).plan

    ours = Entrant("sinkhorn_ot", prepare, partial(off, true), _STOPS)
    peers = [pot(method, posed, reg, rhos, true) for method in METHODS]
    return race((FAMILY, case), ours, peers, ERROR)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for n, reg, rho, both in itertools.product(SIZES, REGS, RHOS, (True, False)):
        case = f"{n} points rho {rho:g} {'both sides' if both else 'one side'} reg {reg:g}"
        rhos = (rho, rho if both else float("inf"))
        yield Cell(case, partial(cell, case, n, reg, rhos))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
