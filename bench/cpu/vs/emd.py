"""Proved exact plans beside `ot.emd` and SciPy's matching: single problems and batches.

An error is that of the marginals, or of the value beside the simplex's where that is larger.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

import sinkhorn_ot as so
from bench.cpu.measure import marginal_error
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import Entrant, race
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_emd"
_ERROR = 1e-9
Array = np.ndarray[Any, Any]


class Size(NamedTuple):
    """A batch, its sources and targets; points of d dimensions, or for 0 independent costs."""

    B: int
    n: int
    m: int
    d: int
    equal: bool

    @property
    def name(self) -> str:
        """What tables call it."""
        costs = f"d={self.d}" if self.d else "independent"
        weights = "equal" if self.equal else "weighted"
        return f"{self.B} of {self.n}x{self.m} {costs} {weights}"


SIZES = [
    Size(1, 25, 25, 2, False),
    Size(1, 100, 100, 2, False),
    Size(1, 400, 400, 2, False),
    Size(1, 400, 400, 0, True),
    Size(1, 1000, 1000, 2, False),
    Size(1, 1000, 1000, 2, True),
    Size(1, 1000, 1000, 0, True),
    Size(1, 1000, 1000, 50, False),
    Size(1, 3639, 3673, 2, False),
    Size(375, 25, 25, 2, False),
    Size(375, 25, 25, 0, True),
    Size(2000, 12, 15, 2, False),
    Size(20, 300, 300, 2, False),
]


def posed(size: Size) -> tuple[Array, Array, Array]:
    """Return costs and weights."""
    rng = np.random.default_rng(0)
    B, n, m, d, equal = size
    x, y = rng.normal(size=(B, n, 1, max(d, 1))), rng.normal(size=(B, 1, m, max(d, 1)))
    C = sum(((x[..., k] - y[..., k]) ** 2 for k in range(d)), np.zeros((B, n, m)))
    a, b = (np.full((B, k), 1 / k) if equal else rng.dirichlet(np.ones(k), B) for k in (n, m))
    return C if d else rng.random((B, n, m)), a, b


def cell(size: Size) -> Row | None:
    """Return one row."""
    import ot

    C, a, b = posed(size)
    count = range(len(C))

    def emd() -> Array:
        return np.stack([ot.emd(a[k], b[k], C[k], numItermax=10**8) for k in count])

    def matching() -> Array:
        P = np.zeros_like(C)
        for k in count:
            rows, columns = linear_sum_assignment(C[k])
            P[k, rows, columns] = 1 / len(rows)
        return P

    best = np.einsum("bnm,bnm->b", emd(), C)

    def error(plan: Any) -> float:
        P = np.asarray(plan).reshape(C.shape)
        value = np.einsum("bnm,bnm->b", P, C)
        return max(marginal_error(P, a, b), float(np.abs(value / best - 1).max()))

    # one problem is posed as one, not as a batch of one
    whole = (C, a, b) if len(C) > 1 else (C[0], a[0], b[0])
    ours = Entrant("sinkhorn_ot", lambda _: lambda: so.solve_exact(*whole).plan, error)
    peers = [Entrant("ot.emd", lambda _: emd, error, package="ot")]
    if size.equal and size.n == size.m:
        peers.append(Entrant("SciPy's matching", lambda _: matching, error, package="scipy"))
    return race((FAMILY, size.name), ours, peers, _ERROR)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for size in SIZES:
        yield Cell(size.name, partial(cell, size))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
