"""Batches beside their loop, sweeps alone and POT's batches: one cost or their own, to each reg.

Everyone is asked for the default tolerance of the dtype, and judged with what rounding adds to it.
"""

import argparse
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.cpu.cases import Case, digits, dirichlet, grid_cost
from bench.cpu.measure import marginal_error
from bench.peers import pot
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import Entrant, Run, race
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_batches"
# problems and points of each; the last is one histogram against many
SIZES = {
    "8x784": (8, 784),
    "256x64": (256, 64),
    "1000x64": (1000, 64),
    "64x1000": (64, 1000),
    "1-256x256": (256, 256),
}
REGS = (0.1, 0.01, 1e-3)
# what is asked for, and what is judged: the exponents of a plan are rounded too
TOLS = {"float64": (1e-9, 1e-8), "float32": (1e-6, 1e-4)}
# what takes half of the time of all
_LONG = "64x1000"
# entries of plans that POT's batches may hold, and the least reg they are asked for
_ENTRIES, _LEAST = 1 << 24, 0.03


def points(count: int, n: int, seed: int, zeros: bool) -> Tensor:
    """Return Dirichlet weights (count, n), of which a third may be zero."""
    a = torch.stack([dirichlet(n, seed + k) for k in range(count)])
    if zeros:
        rng = torch.Generator().manual_seed(seed)
        a[torch.rand(count, n, generator=rng) < 1 / 3] = 0
    return a / a.sum(1, keepdim=True)


def case(size: str, shared: bool, zeros: bool) -> Case:
    """Return a batch; costs lie in [0, 1]: pixels of an image, or points of a square."""
    count, n = SIZES[size]
    side = math.isqrt(n)
    rng = torch.Generator().manual_seed(0)
    if side * side == n:
        a, b = (digits(count, side, k, zeros) for k in (1, 2))
    else:
        a, b = (points(count, n, k, zeros) for k in (1, count + 1))
    if size.startswith("1-"):
        a = a[:1].expand_as(b)
    if shared and side * side == n:
        return Case(size, grid_cost(side), a, b)
    x, y = torch.rand(2, 1 if shared else count, n, 2, generator=rng, dtype=torch.float64)
    C = torch.cdist(x, y).square()
    C /= C.amax((1, 2), keepdim=True)
    return Case(size, C[0] if shared else C, a, b)


def entrant(name: str, case: Case, reg: float, tol: float, method: str = "auto") -> Entrant:
    """Return the batch in one call."""

    def prepare(stop: float) -> Run:
        options: dict[str, Any] = {"method": method, "tol": stop, "on_fail": "ignore"}
        return lambda: so.solve(case.C, case.a, case.b, reg, **options)

    return Entrant(name, prepare, lambda r: marginal_error(r.plan, case.a, case.b), (tol,))


def loop(case: Case, reg: float, tol: float) -> Entrant:
    """Return one problem after the other."""
    costs = case.C.expand(*case.a.shape, case.b.shape[-1])
    problems = list(zip(costs, case.a, case.b, strict=True))

    def prepare(stop: float) -> Run:
        return lambda: [so.solve(*args, reg, tol=stop, on_fail="ignore") for args in problems]

    def error(found: list[so.Transport]) -> float:
        each = zip(found, problems, strict=True)
        return max(marginal_error(r.plan, a, b) for r, (_, a, b) in each)

    return Entrant("loop", prepare, error, (tol,))


def pot_batch(case: Case, reg: float, tol: float) -> Entrant:
    """Return POT's batches."""
    stops = [tol * part for part in (1.0, 0.1, 0.01)]
    error = lambda answer: marginal_error(answer.plan, case.a, case.b)  # noqa: E731
    return Entrant("POT batch", pot.batch(case, reg), error, stops, "ot")


def cell(name: str, made: Case, reg: float, tols: tuple[float, float]) -> Row | None:
    """Return one row."""
    tol, judged = tols
    peers = [loop(made, reg, tol), entrant("sweeps", made, reg, tol, "sinkhorn")]
    if len(made.a) * made.C.shape[-1] * made.C.shape[-2] <= _ENTRIES and reg >= _LEAST:
        peers.append(pot_batch(made, reg, tol))
    return race((FAMILY, name), entrant("sinkhorn_ot", made, reg, tol), peers, judged)


def of_size(name: str, size: str, shared: bool, zeros: bool, kind: str, reg: float) -> Row | None:
    """Return the row of a size."""
    return cell(name, case(size, shared, zeros).to(getattr(torch, kind)), reg, TOLS[kind])


def one_against(name: str, count: int) -> Row | None:
    """Return the row of one histogram against many, loosely, at a reg of the median cost."""
    made = case("1-256x256", shared=True, zeros=True)
    few = replace(made, a=made.a[:count], b=made.b[:count], C=made.C / made.C.median())
    return cell(name, few, 1 / 50, (0.9e-2, 1e-2))


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for size, shared, zeros, kind, reg in itertools.product(
        SIZES, (True, False), (False, True), TOLS, REGS
    ):
        parts = (size, "shared" if shared else "own", "zeros" if zeros else "", kind)
        name = " ".join(part for part in (*parts, f"reg {reg:g}") if part)
        measured = partial(of_size, name, size, shared, zeros, kind, reg)
        yield Cell(name, measured, full=size == _LONG and reg == min(REGS))
    for count in (16, 64, 128, 256):
        name = f"1-{count}x256 tol 0.01 reg 1/50 of the median"
        yield Cell(name, partial(one_against, name, count))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
