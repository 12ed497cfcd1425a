"""Prints exact transport of clouds against size: seconds, peak memory and pairs, beside POT's."""

import argparse
import json
import resource
import time
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.cpu.measure import alone, save


# sizes for each solver: dense POT fills a gigabyte per ten thousand points squared, several times
SIZES = {
    "columns": (1000, 2000, 4000, 10_000, 20_000, 30_000),
    "POT": (1000, 2000, 4000, 10_000),
    "POT lazy": (1000, 2000, 4000, 10_000),
}
DIMENSIONS = 2
PIVOTS = 10**9


def problem(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return points in the unit square with weights that differ."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, n, DIMENSIONS, generator=g, dtype=torch.float64)
    a, b = torch.rand(2, n, generator=g, dtype=torch.float64)
    return x, y, a / a.sum(), b / b.sum()


def by_columns(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> dict[str, Any]:
    """Solve by pairs on demand; tell how many were held and in how many rounds."""
    from sinkhorn_ot.exact.beyond import search

    counts: dict[str, int] = {}
    run = search.Search.run

    def counted(self: search.Search, rough: bool = False) -> so.Status:
        status = run(self, rough)
        # the last one that ends is that of all points
        x = self.found
        counts.update(rounds=x.rounds, missed=x.missed, held=x.held)
        return status

    search.Search.run = counted  # type: ignore[method-assign]
    r = so.solve_exact(so.PointCloud(x, y), a, b, engine="columns")
    told = {"value": float(r.value), "gap": float(r.gap), "status": r.status.name}
    return told | {"marginal_error": float(r.marginal_error)} | counts


def by_pot(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> dict[str, Any]:
    """Solve by POT on the whole matrix."""
    import ot

    C = ot.dist(x.numpy(), y.numpy())
    _, log = ot.emd(a.numpy(), b.numpy(), C, numItermax=PIVOTS, log=True)
    return {"value": float(log["cost"])}


def by_pot_lazily(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> dict[str, Any]:
    """Solve by POT with costs that are computed where its simplex looks at them."""
    from ot.lp import emd2_lazy

    given = (t.numpy() for t in (x, y, a, b))
    value: Any = emd2_lazy(*given, numItermax=PIVOTS, return_matrix=False)  # pyright: ignore
    return {"value": float(value)}


SOLVERS = {"columns": by_columns, "POT": by_pot, "POT lazy": by_pot_lazily}


def measured(name: str, n: int) -> dict[str, Any]:
    """Solve once in this process: its time, and its peak above what it began with."""
    given = problem(n)
    # what is imported late is no part of a problem
    SOLVERS[name](*problem(50))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.thread_time()
    told = SOLVERS[name](*given)
    seconds = time.thread_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"solver": name, "n": n, "seconds": seconds, "peak_mb": peak / 1024, **told}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> None:
    """Run every size."""
    torch.set_num_threads(1)
    if options.one:
        name, n = options.one
        print(json.dumps(measured(name, int(n))))
        return
    sizes = sorted({n for some in SIZES.values() for n in some})
    rows = [
        alone("exact_scale", name, n) for n in sizes for name, some in SIZES.items() if n in some
    ]
    save("exact_scale", rows)
