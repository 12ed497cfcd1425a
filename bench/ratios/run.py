"""Prints where we are slower: every ratio below a bound, worst first, with what measures it again.

Reads what was measured last; with --measure the families are run first, each in a process of its
own, and write bench/results/. A ratio is the best peer's over ours.
"""

import argparse
import subprocess
import sys

from bench import ROOT
from bench.ratios.row import Row, load


FAMILIES = (
    "vs_grid",
    "vs_small",
    "vs_relaxed",
    "vs_batches",
    "vs_clouds",
    "vs_neighbours",
    "vs_divergence",
    "vs_ragged",
    "vs_l1",
    "vs_emd",
    "vs_simplex",
    "vs_published",
    "vs_sela",
    "vs_layers",
    "vs_threads",
    "memory",
)


def below(rows: list[Row], bound: float) -> list[Row]:
    """Return the rows below a bound, worst first; what no peer finished in time is not known."""
    return sorted((r for r in rows if r.ratio < bound and not r.over), key=lambda r: r.ratio)


def told(families: list[str], bound: float) -> None:
    """Print the table, and what it is a part of."""
    rows = [row for family in families for row in load(family)]
    worst = below(rows, bound)
    for row in worst:
        print(f"{row}\n{'':10}  {row.again}")
    print(f"{len(worst)} of {len(rows)} below {bound:g}, {len(below(rows, 0.9))} below 0.9")
    missing = [family for family in families if not load(family)]
    if missing:
        print("not measured:", ", ".join(missing))


def measured(family: str) -> bool:
    """Run a family as a process of its own; return whether it ended well."""
    print(f"== {family}", flush=True)
    command = [sys.executable, "-m", "bench", family]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--below", type=float, default=1.2, help="the least ratio that is left out")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--measure", action="store_true", help="run the families first")


def main(options: argparse.Namespace) -> int:
    """Measure if asked to, and print."""
    failed = [f for f in options.families if options.measure and not measured(f)]
    told(options.families, options.below)
    if failed:
        print("failed:", ", ".join(failed))
    return int(bool(failed))
