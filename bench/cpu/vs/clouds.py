"""Clouds that fit beside the same call with their matrix, which is formed in its clock."""

import argparse
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

import sinkhorn_ot as so
from bench.cpu.cases import dirichlet
from bench.cpu.measure import marginal_error
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import Entrant, Run, race
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_clouds"
SIZES, REGS = (300, 1000, 2000, 5000), (0.1, 1e-2, 1e-3, 2e-4)
TOLS = {"float64": 1e-6, "float32": 1e-4}


def cell(case: str, n: int, reg: float, kind: str) -> Row | None:
    """Return one row: squared distances in the unit square, over the largest there could be."""
    rng, dtype, tol = torch.Generator().manual_seed(0), getattr(torch, kind), TOLS[kind]
    x, y = (torch.rand(2, n, 2, generator=rng, dtype=torch.float64) / 2**0.5).to(dtype)
    a, b = (dirichlet(n, seed).to(dtype) for seed in (1, 2))

    def entrant(name: str, form: Any) -> Entrant:
        def prepare(stop: float) -> Run:
            return lambda: so.solve(form(), a, b, reg, tol=0.9 * stop, on_fail="ignore")

        return Entrant(name, prepare, lambda r: marginal_error(r.plan, a, b), (tol,))

    ours = entrant("cloud", lambda: so.PointCloud(x, y))
    stored = entrant("stored", lambda: torch.cdist(x, y).square())
    return race((FAMILY, case), ours, [stored], tol)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for n, reg, kind in itertools.product(SIZES, REGS, TOLS):
        case = f"{n} points {kind} reg {reg:g}"
        yield Cell(case, partial(cell, case, n, reg, kind))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
