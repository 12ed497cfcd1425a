"""City-block, Euclidean and squared distances of pixels beside MDOT-TNT: two digits as histograms.

Costs are over the largest. Where pixels have no ink the peer is given the problem without them.
"""

import argparse
import itertools
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bench.cpu.cases import Case, digits
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import race, solver
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_l1"
SIDES, COSTS, TOLS = (28, 40), ("L1", "L2", "squared"), (1e-2, 1e-6)
INVERSES = (256, 1024, 4096, 16384)
_FEW = (1024, 16384)
# its stop is about the dual gradient, and smooths the weights
_STOPS = (10, 3, 1, 0.3, 0.1, 0.01)


def pixels(side: int, kind: str) -> Tensor:
    """Return distances between the pixels of a square image, largest one."""
    at = torch.cartesian_prod(*[torch.arange(float(side), dtype=torch.float64)] * 2)
    C = torch.cdist(at, at, p=1 if kind == "L1" else 2)
    C = C.square() if kind == "squared" else C
    return C / C.max()


def cell(case: str, side: int, kind: str, zeros: bool, tol: float, reg: float) -> Row | None:
    """Return one row."""
    a, b = (digits(1, side, seed, zeros)[0] for seed in (1, 101))
    posed = Case(case, pixels(side, kind), a, b)
    peer = solver("MDOT-TNT", posed, reg, tol, [tol * part for part in _STOPS])
    return race((FAMILY, case), solver("sinkhorn_ot", posed, reg, tol), [peer], tol)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for side, kind, zeros, tol, inverse in itertools.product(
        SIDES, COSTS, (True, False), TOLS, INVERSES
    ):
        ink = " zeros" if zeros else ""
        case = f"{side}x{side} {kind}{ink} tol {tol:g} reg 1/{inverse}"
        # whole images of the larger side take minutes
        long = side == max(SIDES) and not zeros
        part = inverse in _FEW and (kind == "L1" or tol == min(TOLS))
        measured = partial(cell, case, side, kind, zeros, tol, 1 / inverse)
        yield Cell(case, measured, full=long and not part)


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
