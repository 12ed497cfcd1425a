"""Measures what backward passes cost beside their solve, in time of one core and in memory.

Clouds in the plane with squared distances, stored and as points, float64, uneven weights. The solve
is one with defaults; the backward passes are by the cost, or by the points of both sides, of the
value, of a sum of the plan's entries or, for points, of a product with the plan, and of one of f.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench import ROOT
from bench.cpu.cases import dirichlet
from bench.cpu.measure import save
from bench.cpu.vs.memory import status
from bench.ratios.family import on_one_core


FILE = "gradients_cost"
SIZES = (64, 250, 1000, 2000)
KINDS = ("stored", "points", "points, unheld")
ACTS = ("solve", "value", "plan", "f")
# of the largest cost, about
REG = 0.02
_MB = 1 << 20


@cache
def _points(n: int) -> tuple[Tensor, Tensor]:
    x, y = torch.rand(2, n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, y


def solved(kind: str, n: int, tracked: bool = True) -> tuple[so.Transport, list[Tensor]]:
    """Return a result and what it is differentiated by."""
    x, y = (t.clone().requires_grad_(tracked) for t in _points(n))
    a, b = dirichlet(n, 1), dirichlet(n, 2)
    if kind == "stored":
        C = torch.cdist(x.detach(), y.detach()).square().requires_grad_(tracked)
        return so.solve(C, a, b, REG), [C]
    cloud = so.PointCloud(x, y, memory=0) if kind == "points, unheld" else so.PointCloud(x, y)
    return so.solve(cloud, a, b, REG), [x, y]


def told(kind: str, act: str, r: so.Transport) -> Tensor:
    """Return the number of which an act is the backward pass."""
    if act == "value":
        return r.value
    if act == "f":
        return (r.f * torch.linspace(-1, 1, r.f.shape[0])).sum()
    if kind == "stored":
        return r.plan.square().sum()
    return r.apply(torch.eye(r.g.shape[0], 3, dtype=torch.float64)).square().sum()


def backward(kind: str, act: str, n: int) -> Callable[[], Any]:
    """Return a backward pass, whose solve is done."""
    r, leaves = solved(kind, n)
    return partial(torch.autograd.grad, told(kind, act, r), leaves)


def ready(kind: str, act: str, n: int) -> Callable[[], Any]:
    """Return an act of which only that remains."""
    return partial(solved, kind, n, tracked=False) if act == "solve" else backward(kind, act, n)


def row(kind: str, n: int) -> dict[str, Any]:
    """Return seconds and megabytes of each act."""
    took: dict[str, list[float]] = {act: [] for act in ACTS}
    for _ in range(max(3, min(15, 2000 // n))):
        for act in ACTS:
            took[act].append(_clock(ready(kind, act, n)))
    seconds = {act: statistics.median(t) for act, t in took.items()}
    sweeps = int(solved(kind, n, tracked=False)[0].n_iter)
    # of small problems it is the allocator's
    megabytes = {act: in_child(kind, act, n) for act in ACTS} if n == SIZES[-1] else {}
    return {"kind": kind, "n": n, "sweeps": sweeps, "seconds": seconds, "megabytes": megabytes}


def _clock(act: Callable[[], Any]) -> float:
    start = time.thread_time()
    act()
    return time.thread_time() - start


def in_child(kind: str, act: str, n: int) -> float:
    """Return the peak of an act in a process of its own, above what it began with."""
    command = [sys.executable, "-m", "bench", "gradient_cost", "--only", kind, act, str(n)]
    # what is freed goes back at once, and cannot be used again unseen
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(_MB), "MALLOC_TRIM_THRESHOLD_": str(_MB)}
    out = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    return float(out.stdout.splitlines()[-1])


def peak(kind: str, act: str, n: int) -> float:
    """Return the peak of an act of this process in megabytes, above what is held before it."""
    ready(kind, act, 20)()
    _points(n)
    last = ready(kind, act, n)
    # the highest mark is set back to what is held now
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    last()
    return (status("VmHWM") - before) / 1024


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--only", nargs=3, metavar=("KIND", "ACT", "N"), help="print its memory")


def main(options: argparse.Namespace) -> int:
    """Print a row for each kind and size."""
    with on_one_core():
        if options.only:
            kind, act, n = options.only
            print(peak(kind, act, int(n)))
            return 0
        rows = [row(kind, n) for kind in KINDS for n in options.sizes]
    for found in rows:
        print(json.dumps(found))
    if tuple(options.sizes) == SIZES:
        print("written to", save(FILE, rows).name)
    return 0
