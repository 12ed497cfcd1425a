"""Proves and times the kernels on a GPU.

First what the card can do at best, then every kernel against float64, then every benchmark beside
its peers; JSON and a page of tables under bench/results/. Runs from a clone, without installation.
Without a GPU it says so and ends; `--cpu` runs all of it on the CPU at toy sizes, kernels in
triton's interpreter.
"""

import argparse
import os
import secrets
import time
from pathlib import Path

import torch

from bench import RESULTS
from bench.gpu.items import Item, Record, all_items, label
from bench.gpu.pool import Settings, Worker, WorkerPool
from bench.gpu.report import Report


# seconds for one item, compilation included: what hangs must not take all there is
_TIMEOUT = {"card": 60.0, "check": 60.0, "promise": 90.0, "row": 120.0}
# the share of the time that checks may take
_CHECKS = 0.45
# children that check beside each other
_WORKERS = max(1, min(6, (os.cpu_count() or 1) // 2))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--cpu", action="store_true", help="run on the CPU at toy sizes")
    parser.add_argument("--out", type=Path, help="folder of the results (default bench/results)")
    parser.add_argument("--seconds", type=float, default=510.0, help="time to keep within")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))


def main(options: argparse.Namespace) -> int:
    """Run everything; return 1 if something failed."""
    if not options.cpu and not torch.cuda.is_available():
        print("No GPU here: nothing was run. --cpu runs it all on the CPU at toy sizes.")
        return 0
    if options.cpu:
        # before anything imports triton, which the children inherit
        os.environ["TRITON_INTERPRET"] = "1"
    report = run(options)
    paths = ", ".join(map(str, report.write())) or "nothing"
    print(f"{len(report.failures)} failed; written: {paths}")
    return 1 if report.failures else 0


def run(options: argparse.Namespace) -> Report:
    """Return what was found."""
    start = time.monotonic()
    settings = Settings(options.cpu, options.seed)
    # toy figures are not kept where the measured ones are
    folder = options.out or (None if options.cpu else RESULTS)
    report = Report(folder, {"toy": options.cpu, "seed": options.seed})

    def do(worker: Worker, item: Item) -> Record:
        share = _CHECKS if item.kind in ("check", "promise") else 1
        left = share * options.seconds - (time.monotonic() - start)
        if left < 3:
            return label(item) | {"status": "skipped", "why": "no time left"}
        return label(item) | worker.run(item, min(left, _TIMEOUT[item.kind]))

    def keep(item: Item, record: Record) -> None:
        report.add(item.kind, record)
        tell(record, time.monotonic() - start)

    alone = Worker(settings)
    keep(Item("card"), do(alone, Item("card")))
    items = all_items()
    checks = [item for item in items if item.kind != "row"]
    for item, record in zip(checks, WorkerPool(settings, _WORKERS).map(checks, do), strict=True):
        keep(item, record)
    report.write()
    for item in items[len(checks) :]:
        keep(item, do(alone, item))
        report.write()
    alone.close(timeout=10)
    return report


def tell(record: dict[str, object], seconds: float) -> None:
    """Print one line about an item."""
    what = " / ".join(str(record[k]) for k in ("kernel", "check", "problem", "who") if k in record)
    said = record.get("why", "")
    if record["status"] == "measured" and "ms_per_iteration" in record:
        said = f"{record['ms_per_iteration']:.4g} ms"
        said += f", error {record['error']:.2g}" if "error" in record else ""
    elif record["status"] == "passed":
        said = f"{record['budget_spent']:.0%} of the budget"
    what = what or str(record.get("card", "card"))
    print(f"{seconds:6.1f} s  {record['status']:8s}  {what}: {said}", flush=True)
