"""Prints how a batch does beside its loop, sweeps alone and POT's batches, in turns on one core.

A ratio is the time of the peer over ours: above one we are quicker. A loop that takes long is timed
over its first problems, and other peers are left out where they would take long.
"""

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.cpu.cases import Case, digits, dirichlet, grid_cost
from bench.cpu.measure import clock, save
from bench.peers import pot


# problems and points of each; the last is one histogram against many
SIZES = {
    "8x784": (8, 784),
    "256x64": (256, 64),
    "1000x64": (1000, 64),
    "64x1000": (64, 1000),
    "1-256x256": (256, 256),
}
REGS = (0.1, 0.01, 1e-3)
DTYPES = {"float64": torch.float64, "float32": torch.float32}
# seconds that a peer may take, and entries of plans that POT's batches may hold
_PATIENCE, _ENTRIES = 4.0, 1 << 24


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


def loop(case: Case, reg: float, **options: Any) -> float:
    """Return the seconds of one problem after the other, from as many as patience allows."""
    costs = case.C.expand(*case.a.shape, case.b.shape[-1])
    start = time.perf_counter()
    done, taken = 0, 0.0
    for args in zip(costs, case.a, case.b, strict=True):
        so.solve(*args, reg, **options)
        done += 1
        taken = time.perf_counter() - start
        if taken > _PATIENCE:
            break
    return taken / done * len(case.a)


def sweeps(case: Case, reg: float, **options: Any) -> float:
    """Return the seconds of sweeps alone; inf beyond patience, or where they do not arrive."""
    start = time.perf_counter()
    late: Callable[[Any], bool] = lambda _: time.perf_counter() - start > _PATIENCE  # noqa: E731
    r = so.solve(case.C, case.a, case.b, reg, method="sinkhorn", callback=late, **options)
    taken = time.perf_counter() - start
    return taken if bool(r.converged.all()) else math.inf


def pot_batch(case: Case, reg: float, tol: float) -> float:
    """Return the seconds of POT's batches; inf where they would take long, or gave no plan."""
    entries = len(case.a) * case.C.shape[-1] * case.C.shape[-2]
    if entries > _ENTRIES or reg < 0.03:
        return math.inf
    return clock(lambda: pot.batch(case, reg)(tol)())


def row(name: str, case: Case, reg: float, turns: int, tol: float | None) -> dict[str, Any]:
    """Return one row: seconds, and ratios to the least of each peer."""
    options: dict[str, Any] = {"on_fail": "ignore"} | ({} if tol is None else {"tol": tol})
    own = tol or (1e-9 if case.C.dtype == torch.float64 else 1e-6)
    seconds: dict[str, list[float]] = {"ours": [], "loop": [], "sinkhorn": [], "POT": []}
    run: dict[str, Callable[[], float]] = {
        "ours": lambda: clock(lambda: so.solve(case.C, case.a, case.b, reg, **options)),
        "loop": lambda: loop(case, reg, **options),
        "sinkhorn": lambda: sweeps(case, reg, **options),
        "POT": lambda: pot_batch(case, reg, own),
    }
    for turn in range(turns):
        # what ran before leaves caches and memory behind: everyone is first once
        first = turn % len(run)
        for peer, act in [*run.items()][first:] + [*run.items()][:first]:
            # who takes long is not asked again
            if turn == 0 or (peer == "ours" or seconds[peer][0] < _PATIENCE):
                seconds[peer].append(act())
        if sum(min(s) for s in seconds.values() if min(s) < math.inf) > 2 * _PATIENCE:
            break
    least = {peer: min(s) for peer, s in seconds.items()}
    ratios = {peer: least[peer] / least["ours"] for peer in least if peer != "ours"}
    told = "  ".join(f"{p} {r:6.2f}" if r < math.inf else f"{p}      -" for p, r in ratios.items())
    print(f"{name:38s} reg {reg:<6g} ours {least['ours']:8.3f} s  {told}", flush=True)
    return {"case": name, "reg": reg, **least, "worst": min(ratios.values())}


def table(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows asked for."""
    for size in SIZES:
        if options.only and size not in options.only:
            continue
        for shared in (True, False):
            for zeros in (False, True):
                made = case(size, shared, zeros)
                for kind, dtype in DTYPES.items():
                    parts = (size, "shared" if shared else "own", "zeros" if zeros else "", kind)
                    name = " ".join(part for part in parts if part)
                    for reg in options.regs:
                        yield row(name, made.to(dtype), reg, options.turns, options.tol)


def one_against_many(turns: int) -> Iterator[dict[str, Any]]:
    """Yield one histogram against many, to a loose tolerance, at a reg of the median cost."""
    for count in (16, 64, 128, 256):
        made = case("1-256x256", shared=True, zeros=True)
        few = replace(made, a=made.a[:count], b=made.b[:count])
        few = replace(few, C=few.C / few.C.median())
        yield row(f"1-{count}x256 tol 1e-2", few, 1 / 50, turns, 1e-2)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--turns", type=int, default=3, help="timed turns of all, of which minima")
    parser.add_argument("--only", nargs="+", choices=SIZES, help="sizes; nothing is written then")
    parser.add_argument("--regs", nargs="+", type=float, default=REGS, help="relative to the cost")
    parser.add_argument("--tol", type=float, help="marginal error; the default of each dtype")


def main(options: argparse.Namespace) -> None:
    """Run the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = [*table(options)]
    if not options.only or "1-256x256" in options.only:
        rows += one_against_many(options.turns)
    worst = [r["worst"] for r in rows]
    print(f"median of the worst ratio {statistics.median(worst):.2f}, least {min(worst):.2f}")
    if not options.only:
        print("written to", save("vs_batches", rows).name)
