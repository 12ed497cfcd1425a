"""Small problems beside POT at its best: 64 to 300 points, weights of all kinds, and digit pairs.

Zero weights are ours to leave out; the peer is given the problem without them.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial

from bench.cpu.cases import WEIGHTS, Case, dense, digit_pair
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import race, solver
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_small"
SIZES, REGS, TOLS = (64, 100, 200, 300), (1.0, 0.1, 0.01), (1e-3, 1e-6)
PEERS = ("POT", "POT log", "POT stabilized")


def cell(case: str, make: Callable[[], Case], reg: float, tol: float) -> Row | None:
    """Return one row."""
    posed = make()
    ours, *peers = (solver(name, posed, reg, tol) for name in ("sinkhorn_ot", *PEERS))
    return race((FAMILY, case), ours, peers, tol)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    kinds: dict[str, Callable[[], Case]] = {"digit pair 64": partial(digit_pair, 8)}
    for kind, n, weights in itertools.product(("points", "random"), SIZES, WEIGHTS):
        kinds[f"{kind} {n} {weights}"] = partial(dense, kind, n, weights)
    for (kind, make), reg, tol in itertools.product(kinds.items(), REGS, TOLS):
        case = f"{kind} reg {reg:g} tol {tol:g}"
        yield Cell(case, partial(cell, case, make, reg, tol))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
