"""Times every solver on every problem to 1e-3, 1e-6 and 1e-9.

Every answer is judged in float64 by code that shares nothing with any solver. What is measured is
kept line by line: a run that is interrupted goes on from there. Writes bench/results/grid.json.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bench import RESULTS
from bench.cpu.cases import Problem
from bench.cpu.grid.child import fork_server, in_child
from bench.cpu.grid.selection import ERRORS, OURS, cap, problems, solvers
from bench.cpu.grid.trial import Row
from bench.cpu.measure import machine


LINES = RESULTS / "grid.jsonl"
# what we may take: nothing hangs
_OUR_CAP = 60.0
PACKAGES = ("POT", "ott-jax", "jax", "geomloss", "mdot-tnt", "regot")
Line = dict[str, Any]


def main(options: argparse.Namespace) -> None:
    """Run what is missing, then write it all."""
    torch.set_num_threads(1)
    context, start = fork_server(options.core), time.monotonic()
    if options.fresh:
        LINES.unlink(missing_ok=True)
    chosen = [p for p in problems() if options.match in f"{p.name}, reg {p.reg:g}"]
    done, left = {key(line) for line in lines()}, 0
    for k, problem in enumerate(chosen):
        if time.monotonic() - start > 60 * options.minutes:
            left = len(chosen) - k
            print(f"{left} problems are left: run again to go on")
            break
        if key(asdict(problem)) not in done:
            keep(problem, compare(context, problem), time.monotonic() - start)
    if not options.match:
        print("written to", save())
        # what is left will need them
        if not left:
            LINES.unlink()


def compare(context: Any, problem: Problem) -> dict[str, list[Row]]:
    """Return the rows of every solver; this package runs first and last."""
    errors = ERRORS[problem.dtype]
    ours = list(in_child(context, problem, OURS, dict.fromkeys(errors, _OUR_CAP)))
    took = {row.error: row.seconds if row.status == "reached" else None for row in ours}
    found = {}
    for name in solvers(problem):
        caps = {error: cap(problem.kind, name, took[error]) for error in errors}
        found[name] = list(in_child(context, problem, name, caps))
    again = list(in_child(context, problem, OURS, dict.fromkeys(errors, _OUR_CAP)))
    return {OURS: [mean_of(*pair) for pair in zip(ours, again, strict=True)], **found}


def mean_of(one: Row, two: Row) -> Row:
    """Return one row for two of one solver and error: their mean, or the one that fell short."""
    if one.status != "reached" or two.status != "reached":
        return one if one.status != "reached" else two
    assert one.seconds is not None
    assert two.seconds is not None
    return replace(one, seconds=(one.seconds + two.seconds) / 2)


def keep(problem: Problem, found: dict[str, list[Row]], now: float) -> None:
    """Add a problem's rows to the file, and print them."""
    print(f"{now:6.0f} s  {problem.name}, reg {problem.reg:.3g}", flush=True)
    LINES.parent.mkdir(exist_ok=True)
    with LINES.open("a") as file:
        rows = [
            {"peer": name} | {k: short(v) for k, v in asdict(row).items() if v not in (None, "")}
            for name, group in found.items()
            for row in group
        ]
        file.write(json.dumps({**asdict(problem), "name": problem.name, "rows": rows}) + "\n")
    for name, group in found.items():
        told = "   ".join(f"{row.error:g} {in_words(row)}" for row in group)
        print(f"          {name:16s} {told}", flush=True)


def in_words(row: Row) -> str:
    """Return a row in a few words."""
    if row.status == "reached":
        return f"{row.seconds:.4f} s"
    if row.status == "over":
        return f"over {row.seconds:.0f} s"
    return f"{row.status} {'' if row.reached is None else f'at {row.reached:.1e}'}{row.why[:60]}"


def short(value: Any) -> Any:
    """Return four digits of a number."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def lines() -> list[Line]:
    """Return what has been measured."""
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def key(line: Line) -> tuple[Any, ...]:
    """Return what tells a problem from the others."""
    return tuple(line[name] for name in ("kind", "n", "reg", "weights", "dtype"))


def save() -> Path:
    """Write everything that has been measured, one problem a line."""
    body = ",\n".join(json.dumps(line) for line in lines())
    told = json.dumps(machine() | versions())
    path = RESULTS / "grid.json"
    path.write_text(f'{{"machine": {told},\n"problems": [\n{body}\n]}}\n')
    return path


def versions() -> dict[str, str]:
    """Return the versions of the peers; "not installed" is said too."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--core", type=int, help="the core to run on; the first one by default")
    parser.add_argument("--minutes", type=float, default=22.0, help="begin nothing after these")
    parser.add_argument("--match", default="", help="only problems whose name contains this")
    parser.add_argument("--fresh", action="store_true", help="forget an interrupted run")
