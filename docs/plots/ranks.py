"""What more ranks are expected to bring: sweeps measured on one, and a model of reductions.

A sweep of p ranks ends with the slowest of them, and then sums its columns. What one rank takes is
drawn from sweeps that were measured; what a reduction takes is the better of two models, a ring and
a tree (R. Thakur, R. Rabenseifner, W. Gropp, Optimization of collective communication operations in
MPICH, IJHPCA 19, 2005, section 4). No figure here was measured on more than one machine.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from style import DASHES, MARKS, Theme, table


RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
RANKS = (8, 16, 32, 64, 128, 256, 512, 1024)
# draws of a sweep
_DRAWS = 400


@dataclass(frozen=True)
class Network:
    """A network between ranks.

    Attributes:
        name: What it is called.
        step: Seconds of a step of a ring, from neighbour to neighbour.
        level: Seconds of a level of a tree.
        base: Seconds of a reduction whatever it sums.
        rate: Bytes a second in and out of a rank.
    """

    name: str
    step: float
    level: float
    base: float
    rate: float

    def ring(self, ranks: int, size: float) -> float:
        """Return the seconds of an all-reduce: scattered and gathered around a ring."""
        return self.base + 2 * (ranks - 1) * self.step + 2 * (ranks - 1) / ranks * size / self.rate

    def tree(self, ranks: int, size: float) -> float:
        """Return the seconds of an all-reduce: up a tree and down again, in pieces."""
        return self.base + 2 * math.ceil(math.log2(ranks)) * self.level + 2 * size / self.rate

    def reduce(self, ranks: int, size: float) -> float:
        """Return the seconds of the quicker one."""
        return 0.0 if ranks == 1 else min(self.ring(ranks, size), self.tree(ranks, size))


# latencies are those by which NCCL chooses (src/graph/tuning.cc, protocol LL); rates are of the
# data sheets: NVLink of an H200, 900 GB/s both ways; NDR InfiniBand, 400 Gb/s; Ethernet is assumed
NVLINK = Network("NVLink", 0.47e-6, 0.52e-6, 4.4e-6, 450e9)
INFINIBAND = Network("InfiniBand, 400 Gb/s", 2.7e-6, 5.0e-6, 4.4e-6, 50e9)
ETHERNET = Network("Ethernet, 25 Gb/s", 30e-6, 30e-6, 50e-6, 3.1e9)
NETWORKS = (INFINIBAND, ETHERNET)
# ranks of one machine that NVLink joins
_EIGHT = 8


@dataclass(frozen=True)
class Rank:
    """What sweeps the rows of one rank.

    Attributes:
        name: What it is called.
        fixed: Seconds of a sweep of no rows.
        pair: Seconds of a pair more.
        jitter: Sweeps beside their median, as they were measured.
    """

    name: str
    fixed: float
    pair: float
    jitter: np.ndarray

    def slowest(self, ranks: int, pairs: float, random: np.random.Generator) -> float:
        """Return what the slowest of some ranks takes for its sweep, in the mean of many."""
        drawn = random.choice(self.jitter, (_DRAWS, ranks)).max(1).mean()
        return (self.fixed + self.pair * pairs) * float(drawn)


@dataclass(frozen=True)
class Task:
    """A problem that is spread over ranks.

    Attributes:
        name: What it is called.
        rank: What sweeps a part of it.
        rows: Its rows, on all ranks.
        columns: Its columns, on each.
        inside: What joins the ranks of one machine; None for what joins machines.
    """

    name: str
    rank: Rank
    rows: float
    columns: float
    inside: Network | None = None

    @property
    def size(self) -> float:
        """Bytes of a reduction: a number in float64 for each column."""
        return 8 * self.columns

    def sweep(self, ranks: int, network: Network, random: np.random.Generator) -> tuple[float, ...]:
        """Return the seconds of a sweep, and those of its reduction."""
        own = self.rank.slowest(ranks, self.rows * self.columns / ranks, random)
        here = min(ranks, _EIGHT) if self.inside else 1
        reduced = network.reduce(ranks // here, self.size)
        if self.inside:
            reduced += self.inside.reduce(here, self.size)
        return own + reduced, reduced


@cache
def measured() -> list[dict]:
    """Return the rows of `python -m bench ranks`."""
    return json.loads((RESULTS / "ranks.json").read_text())["rows"]


def core(case: str) -> Rank:
    """Return a core of the machine that the bench ran on: a line through what parts took."""
    parts = [r for r in measured() if r["case"] == case and "sweeps_ms" in r]
    pairs = np.array([r["rows"] * r["columns"] for r in parts], float)
    took = np.array([r["ms"] for r in parts]) / 1e3
    # small parts count as much as large ones
    line = np.polynomial.Polynomial.fit(pairs, took, 1, w=1 / took).convert().coef
    jitter = np.concatenate([np.array(r["sweeps_ms"]) / r["ms"] for r in parts[:2]])
    return Rank("a core", max(float(line[0]), 0.0), float(line[1]), jitter)


@cache
def card() -> Rank:
    """Return an H200: what its record says of two calls of SeLa, and of sweeps by the host."""
    calls = json.loads((RESULTS / "gpu-nvidia-h200.json").read_text())["calls"]
    ms = {(r["problem"], r["who"]): r for r in calls if "ms" in r}
    large = ms["sela_labels 1281167x3000 fp16 to 1e-6", "sela_labels"]
    small = ms["solve 4096x3000 fp32, 10 sweeps", "solve"]
    pair = large["ms"] / 1e3 / large["n_iter"] / (1281167 * 3000)
    # of a small problem all but its pairs is what launches and waits take
    fixed = small["ms"] / 1e3 / 10 - pair * 4096 * 3000
    spread = np.array([small["p20"], small["ms"], small["p80"]]) / small["ms"]
    return Rank("an H200", fixed, pair, spread)


def tasks() -> tuple[Task, ...]:
    """Return what is spread."""
    return (
        Task("labels of 1.28 million by 3000, on cores", core("stored"), 1281167, 3000),
        Task("clouds of 100,000 by 10,000, on cores", core("cloud"), 1e5, 1e4),
        Task("labels of 1.28 million by 3000, on H200s", card(), 1281167, 3000, NVLINK),
        Task("labels of 1 billion by 3000, on H200s", card(), 1e9, 3000, NVLINK),
    )


def draw(theme: Theme) -> Figure:
    """Left seconds of a sweep by ranks, right the share of it that is the reduction."""
    figure = Figure(figsize=(9.6, 3.6))
    left, right = figure.subplots(1, 2)
    random = np.random.default_rng(0)
    for k, task in enumerate(tasks()):
        for network, dashes in zip(NETWORKS, DASHES, strict=False):
            told = np.array([task.sweep(p, network, random) for p in RANKS])
            look = {"color": theme.series[k], "linestyle": dashes, "marker": MARKS[k], "ms": 3.5}
            label = task.name if network is INFINIBAND else None
            left.loglog(RANKS, told[:, 0], label=label, **look)
            right.semilogx(RANKS, 100 * told[:, 1] / told[:, 0], **look)
    _named(left, "seconds of a sweep", "Predicted: a sweep")
    _named(right, "share of the all-reduce, %", "Predicted: what is spent on sums")
    for network, dashes in zip(NETWORKS, DASHES, strict=False):
        right.plot([], [], color=theme.soft, linestyle=dashes, label=network.name)
    right.legend(loc="upper left", fontsize=9)
    figure.subplots_adjust(wspace=0.25)
    # below: no corner is empty of lines
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="upper center",
        ncols=2,
        fontsize=9,
        bbox_to_anchor=(0.5, -0.02),
    )
    return figure


def _named(at: Axes, what: str, title: str) -> None:
    at.set(xlabel="ranks", ylabel=what, xticks=RANKS, xticklabels=[str(p) for p in RANKS])
    at.minorticks_off()
    at.set_title(title)
    at.grid(True, axis="y")


def tables() -> None:
    """Write what was measured, and what follows by the model."""
    rows = []
    for r in measured():
        if "ranks" in r:
            share = 100 * r["reduce_ms"] / r["ms"]
            counted = [f"{r['reductions']:.0f}", f"{r['bytes']:,.0f}"]
            rows.append([r["case"], str(r["ranks"]), f"{r['ms']:.1f}", f"{share:.0f} %", *counted])
    header = ["rows", "ranks", "ms of CPU a sweep", "all-reduce", "reductions", "bytes a sweep"]
    table("ranks_measured", header, rows)
    random, rows = np.random.default_rng(0), []
    for task in tasks():
        for network in NETWORKS:
            seconds = {p: task.sweep(p, network, random) for p in (1, *RANKS)}
            cells = [_ms(seconds[p][0]) for p in (8, 64, 1024)]
            ends = [p for p in RANKS if seconds[p][1] > seconds[p][0] / 2]
            full = str(ends[0]) if ends else "beyond 1024"
            rows.append([task.name, network.name, *cells, full])
    header = ["problem", "network", "ms a sweep on 8", "on 64", "on 1024", "sums take half from"]
    table("ranks_predicted", header, rows)


def _ms(seconds: float) -> str:
    """Return milliseconds in three digits or more."""
    ms = 1e3 * seconds
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"
