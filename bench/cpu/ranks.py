"""Measures sweeps over 1, 2 and 4 gloo processes of this machine, and what of them is all-reduced.

Seconds and reductions per sweep are those of 20 sweeps more: what a call does once drops out. They
are CPU time of the slowest rank, for processes share cores, and who else runs is no part of it. The
same rows are swept by one process too, in ever smaller parts, sweep by sweep: that is what the page
on ranks predicts other numbers of ranks from.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

import sinkhorn_ot as so
from bench.cpu.measure import save


WORLDS = (1, 2, 4)
FEWER, MORE = 10, 30
# parts of the rows that one process sweeps by itself, and its sweeps
PARTS, SWEEPS = (1, 4, 16, 64), 24
HOW: dict[str, Any] = {
    "method": so.Sinkhorn(so.Plain(), None),
    "tol": 1e-300,
    "on_fail": "ignore",
}


def stored(rows: slice) -> torch.Tensor:
    """Return scores of SeLa's kind as costs: 20000 samples, 1000 labels."""
    g = torch.Generator().manual_seed(0)
    return -torch.log_softmax(3 * torch.randn(20_000, 1000, generator=g), -1)[rows]


def cloud(rows: slice) -> so.PointCloud:
    """Return 16-dimensional points, 8000 onto 2000, whose costs are formed at each sweep."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(8000, 16, generator=g), torch.rand(2000, 16, generator=g)
    return so.PointCloud(x[rows], y)


# what makes the rows, how many there are, and reg
CASES: dict[str, tuple[Callable[[slice], Any], int, float]] = {
    "stored": (stored, 20_000, 0.2),
    "cloud": (cloud, 8000, 0.1),
}


def _rank(rank: int, world: int, folder: str, case: str) -> None:
    """Be one rank: time both numbers of sweeps, and the reductions within."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
    )
    make, n, reg = CASES[case]
    cost = make(slice(rank * n // world, (rank + 1) * n // world))
    spent = {"reductions": 0.0, "reduce": 0.0, "bytes": 0.0}
    reduce = dist.all_reduce

    def timed(x: torch.Tensor, *args: Any, **options: Any) -> Any:
        start = time.process_time()
        done = reduce(x, *args, **options)
        spent["reduce"] += time.process_time() - start
        spent["reductions"] += 1
        spent["bytes"] += x.numel() * x.element_size()
        return done

    dist.all_reduce = timed
    found = []
    for sweeps in (FEWER, MORE) * 3:
        spent = dict.fromkeys(spent, 0.0)
        dist.barrier()
        start = time.process_time()
        so.solve(cost, reg=reg, max_iter=sweeps, group=dist.group.WORLD, **HOW)
        found.append({"all": time.process_time() - start} | spent)
    torch.save(found, f"{folder}/{rank}")
    dist.barrier()
    dist.destroy_process_group()


def together(case: str, world: int) -> dict[str, Any]:
    """Return one row: what a sweep takes on so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_rank, (world, folder, case), world)
        told = [torch.load(Path(folder) / str(rank)) for rank in range(world)]

    def each(name: str, ranks: list[list[dict[str, float]]]) -> float:
        """Return what a sweep more takes, the least of three times, of the slowest rank."""
        least = [[min(t[name] for t in times[at::2]) for at in (0, 1)] for times in ranks]
        return max((more - fewer) / (MORE - FEWER) for fewer, more in least)

    return {
        "case": case,
        "ranks": world,
        "ms": 1e3 * each("all", told),
        "reduce_ms": 1e3 * each("reduce", told),
        "reductions": each("reductions", told),
        "bytes": each("bytes", told),
    }


def alone(case: str, part: int) -> dict[str, Any]:
    """Return one row: the sweeps of one process over a part of the rows, each in CPU time."""
    make, n, reg = CASES[case]
    cost = make(slice(0, n // part))
    at = [time.thread_time()]
    so.solve(
        cost,
        reg=reg,
        max_iter=SWEEPS,
        callback=lambda _: at.append(time.thread_time()),
        **HOW,
    )
    took = [1e3 * (b - a) for a, b in zip(at[1:], at[2:], strict=False)]
    return {
        "case": case,
        "rows": cost.shape[0],
        "columns": cost.shape[1],
        "ms": statistics.median(took),
        "sweeps_ms": [round(t, 4) for t in took],
    }


def main(options: argparse.Namespace) -> None:
    """Run every case."""
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        for act in (
            *(partial(alone, case, part) for part in PARTS),
            *(partial(together, case, world) for world in WORLDS),
        ):
            row = act()
            rows.append(row)
            print(
                {
                    k: round(v, 4) if isinstance(v, float) else v
                    for k, v in row.items()
                    if k != "sweeps_ms"
                },
                flush=True,
            )
    save("ranks", rows)
