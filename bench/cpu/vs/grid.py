"""A part of the grid in minutes: its problems to 1e-6 beside the peers that a clock can stop.

Larger problems, and the grid's other errors, are measured with --full.
"""

import argparse
from collections.abc import Iterator
from functools import partial

from bench.cpu.cases import Problem
from bench.cpu.grid.selection import ERRORS, EXACT, problems, solvers
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import race, solver
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_grid"
# what is compiled, or waits in C++, does not hear that it is late
_DEAF = ("OTT", "RegOT", EXACT)
# the error of the part, and entries of its largest plans
_ERROR, _LARGEST = 1e-6, 4_100_000


def cell(case: str, problem: Problem, error: float) -> Row | None:
    """Return one row."""
    posed = problem.case()
    names = [name for name in solvers(problem) if not name.startswith(_DEAF)]
    peers = [solver(name, posed, problem.reg, error) for name in names]
    return race((FAMILY, case), solver("sinkhorn_ot", posed, problem.reg, error), peers, error)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for problem in problems():
        for error in ERRORS[problem.dtype]:
            case = f"{problem.name}, reg {problem.reg:.3g} tol {error:g}"
            full = error != _ERROR or problem.size > _LARGEST
            yield Cell(case, partial(cell, case, problem, error), full)


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
