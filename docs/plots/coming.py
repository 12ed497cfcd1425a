"""Calls by POT and by this package, in turns: measured by `python docs/plots/coming.py`."""

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ot as theirs
import torch
from matplotlib.figure import Figure
from style import DASHES, MARKS, Theme, table

import sinkhorn_ot.compat.pot as ot


SOURCE = Path(__file__).with_name("coming.json")
SIZES, REGS = (50, 200, 1000), (1.0, 0.1, 0.01, 0.001)
Call = Callable[[Any], Any]


def clouds(n: int) -> tuple[Any, Any, Any, Any, Any]:
    """Return weights, costs in [0, 1] and points of two clouds in the unit square."""
    g = np.random.default_rng(0)
    x, y = g.random((n, 2)), g.random((n, 2))
    M = theirs.dist(x, y)
    b = g.random(n) + 0.1
    return theirs.unif(n), b / b.sum(), M / M.max(), x, y


def others() -> dict[str, Call]:
    """Return further calls, of either package."""
    a, b, M, x, y = clouds(200)
    large = clouds(1000)
    stack = np.stack([np.random.default_rng(k).random((30, 30)) for k in range(32)])
    A = np.stack([np.roll(b, 7 * k) for k in range(10)], 1)
    line = np.random.default_rng(0).standard_normal((2, 5000))
    return {
        "emd, 200 points": lambda k: k.emd(a, b, M),
        "emd, 1000 points": lambda k: k.emd(*large[:3]),
        "sinkhorn_unbalanced, 200 points, reg_m = 0.1": lambda k: k.sinkhorn_unbalanced(
            a, 2 * b, M, 0.01, 0.1
        ),
        "solve_sample, 1000 points, lazy, reg = 0.05": lambda k: (
            k.solve_sample(large[3], large[4], reg=0.05, lazy=True).potentials
        ),
        "batch.solve_batch, 32 problems of 30 points, reg = 0.01": lambda k: (
            k.batch.solve_batch(stack, 0.01, max_iter=10_000).plan
        ),
        "partial_wasserstein, 200 points": lambda k: k.partial.partial_wasserstein(a, b, M, 0.5),
        "entropic_partial_wasserstein, 200 points, reg = 0.1": lambda k: (
            k.partial.entropic_partial_wasserstein(a, b, M, 0.1, 0.5, stopThr=1e-9)
        ),
        "barycenter, 10 histograms of 200 points, reg = 0.01": lambda k: k.barycenter(
            A, M, 0.01, stopThr=1e-9, warn=False
        ),
        "wasserstein_1d, 5000 points": lambda k: k.wasserstein_1d(*line),
        "sliced_wasserstein_distance, 200 points": lambda k: k.sliced_wasserstein_distance(
            x, y, seed=0
        ),
    }


def in_turns(calls: list[Callable[[], Any]], seconds: float) -> list[float]:
    """Return the least time of each call, made in turns on one thread."""
    times: list[list[float]] = [[] for _ in calls]
    began = time.perf_counter()
    while len(times[0]) < 3 or (time.perf_counter() - began < seconds and len(times[0]) < 300):
        for call, taken in zip(calls, times, strict=True):
            start = time.thread_time()
            call()
            taken.append(time.thread_time() - start)
    return [min(taken) for taken in times]


def measure(seconds: float = 1.0) -> None:
    """Time all calls, and write what they took and how far from their marginals they ended."""
    torch.set_num_threads(1)
    rows = []
    for n in SIZES:
        a, b, M, *_ = clouds(n)
        for reg in REGS:
            P, Q = theirs.sinkhorn(a, b, M, reg), ot.sinkhorn(a, b, M, reg)
            off = [float(np.abs(plan.sum(0) - b).sum()) for plan in (P, Q)]
            calls = [
                lambda reg=reg, a=a, b=b, M=M: theirs.sinkhorn(a, b, M, reg),
                lambda reg=reg, a=a, b=b, M=M: ot.sinkhorn(a, b, M, reg),
            ]
            rows.append({"n": n, "reg": reg, "off": off, "seconds": in_turns(calls, seconds)})
    more = [
        {"call": name, "seconds": in_turns([lambda c=c: c(theirs), lambda c=c: c(ot)], seconds)}
        for name, c in others().items()
    ]
    SOURCE.write_text(json.dumps({"sinkhorn": rows, "others": more}, indent=1) + "\n")


def tables() -> None:
    """Write both times of every call."""
    known = json.loads(SOURCE.read_text())
    rows = []
    for row in known["sinkhorn"]:
        first, second = row["seconds"]
        off = [f"{error:.0e}" for error in row["off"]]
        name = f"sinkhorn, {row['n']} points, reg = {row['reg']:g}"
        rows.append([name, _time(first), _time(second), f"{first / second:.1f}", *off])
    for row in known["others"]:
        first, second = row["seconds"]
        rows.append([row["call"], _time(first), _time(second), f"{first / second:.1f}", "", ""])
    table("coming", ["", "POT", "here", "ratio", "POT's error", "ours"], rows)


def _time(seconds: float) -> str:
    return f"{1e6 * seconds:.0f} µs" if seconds < 1e-3 else f"{1e3 * seconds:.1f} ms"


def draw(theme: Theme) -> Figure:
    """Times of one call against reg, a panel for each size; open marks did not converge."""
    known = json.loads(SOURCE.read_text())["sinkhorn"]
    figure = Figure(figsize=(9.6, 3.0))
    panels = figure.subplots(1, len(SIZES), sharex=True)
    for axes, n in zip(panels, SIZES, strict=True):
        rows = [row for row in known if row["n"] == n]
        for k, name in enumerate(("POT", "here")):
            colour, times = theme.series[1 - k], [1e3 * row["seconds"][k] for row in rows]
            axes.loglog(REGS, times, color=colour, linestyle=DASHES[1 - k], label=name)
            for row, t in zip(rows, times, strict=True):
                face = colour if row["off"][k] < 1e-6 else theme.page
                axes.plot(row["reg"], t, MARKS[1 - k], color=colour, markerfacecolor=face)
        axes.invert_xaxis()
        axes.set_title(f"{n} points")
        axes.set_xlabel("reg")
        axes.grid(axis="y")
    panels[0].set_ylabel("ms")
    panels[0].legend(loc="upper left", fontsize=9)
    figure.subplots_adjust(wspace=0.24)
    return figure


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    measure()
