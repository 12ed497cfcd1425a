"""Proves and times the kernels on a GPU, and the calls that users make, in five minutes of a card.

First what the card can do at best, then every kernel against float64, then the calls as users make
them, with POT beside `solve` where it can be imported, then the kernels alone. Packages that take
a minute to compile are timed by `--peers`, which does nothing else. JSON and a page of tables are
written after each item, so that a run may be cut off. Runs from a clone, without installation.
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
from bench.gpu.items import PARTS, Item, Record, beside, called, chosen, label, limit, timed
from bench.gpu.pool import UNANSWERED, Settings, Worker, WorkerPool
from bench.gpu.report import Report


# of a card; a CPU has all it needs
_SECONDS, _ON_CPU = 290.0, 3600.0
# the share of the time that may go to what is not timed
_CHECKS = 0.32
# children that check beside each other
_WORKERS = max(1, min(12, 3 * (os.cpu_count() or 1) // 4))
# less time than this is not worth a start
_LEAST = 3.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--cpu", action="store_true", help="run on the CPU at toy sizes")
    parser.add_argument("--out", type=Path, help="folder of the results (default bench/results)")
    parser.add_argument("--seconds", type=float, help=f"time to keep within (default {_SECONDS:g})")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    parser.add_argument("--skip-checks", action="store_true", help="time only")
    parser.add_argument("--peers", action="store_true", help="only peers that compile for long")
    parser.add_argument(
        "--only", default="", metavar="NAME[,NAME]",
        help=f"only these parts ({', '.join(PARTS)}), or what has such a name",
    )  # fmt: skip


def main(options: argparse.Namespace) -> int:
    """Run everything; return 1 if something failed."""
    if not options.cpu and not torch.cuda.is_available():
        print("No GPU here: nothing was run. --cpu runs it all on the CPU at toy sizes.")
        return 0
    if options.cpu:
        # before anything imports triton, which the children inherit
        os.environ["TRITON_INTERPRET"] = "1"
    report = Run(options).all()
    paths = ", ".join(map(str, report.write())) or "nothing"
    print(f"{len(report.failures)} failed; written: {paths}")
    return 1 if report.failures else 0


class Run:
    """One run, from its start to the end of its time."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._start = time.monotonic()
        self._options = options
        self._seconds = options.seconds
        if self._seconds is None:
            self._seconds = _ON_CPU if options.cpu else _SECONDS
        self._settings = Settings(options.cpu, options.seed)
        # toy figures are not kept where the measured ones are
        folder = options.out or (None if options.cpu else RESULTS)
        head = {"toy": options.cpu, "seed": options.seed, "peers": options.peers}
        head["only"] = options.only
        self._report = Report(folder, head)

    def all(self) -> Report:
        """Return what was found."""
        clock, counter = Worker(self._settings), Worker(self._settings)
        self._keep(Item("card"), self._do(clock, Item("card")))
        first, then = self._asked()
        for item, record in WorkerPool(self._settings, _WORKERS).map(first, self._do_early):
            if "OutOfMemory" in record.get("why", ""):
                # the others took it
                record = self._do_early(clock, item)
            self._keep(item, record)
        for item in then:
            # whoever has been profiled launches more slowly afterwards
            self._keep(item, self._do(counter if item.kind == "profile" else clock, item))
        for worker in (clock, counter):
            worker.close(timeout=10)
        return self._report

    def _asked(self) -> tuple[list[Item], ...]:
        """Return what runs beside each other, and what then runs alone."""
        only = [name for name in self._options.only.split(",") if name]
        first = [] if self._options.peers else chosen(beside(), only)
        then = chosen(timed(self._options.peers), only)
        left_out = ("check", "promise") if self._options.skip_checks else ()
        # a CPU has nothing to compile and nothing to launch
        left_out += ("ahead", "profile") if self._options.cpu else ()
        return tuple([i for i in items if i.kind not in left_out] for items in (first, then))

    def _do_early(self, worker: Worker, item: Item) -> Record:
        return self._do(worker, item, _CHECKS)

    def _do(self, worker: Worker, item: Item, share: float = 1.0) -> Record:
        left = share * self._seconds - self._now()
        if left < _LEAST:
            return label(item) | {"status": "skipped", "why": "no time left"}
        record = label(item) | worker.run(item, min(left, limit(item)))
        if left < limit(item) and record.get("why", "").startswith(UNANSWERED):
            # it was cut short, and may be sound
            record |= {"status": "skipped", "why": f"cut off: {record['why']}, all that was left"}
        return record

    def _keep(self, item: Item, record: Record) -> None:
        self._report.add(item.kind, record)
        self._report.write()
        tell(item.kind, record, self._now())

    def _now(self) -> float:
        return time.monotonic() - self._start


def tell(kind: str, record: Record, seconds: float) -> None:
    """Print one line about an item."""
    what = called(record) or str(record.get("card", "card"))
    if kind in ("ahead", "profile"):
        what += {"ahead": ", ahead", "profile": ", launches"}[kind]
    print(f"{seconds:6.1f} s  {record['status']:8s}  {what}: {_said(record)}", flush=True)


def _said(record: Record) -> str:
    if record["status"] == "passed":
        return f"{record['budget_spent']:.0%} of the budget"
    if seen := record.get("profile"):
        return (
            f"{seen['launches']} launches, {seen['waits']} waits, "
            f"{seen['device_ms']:.4g} ms on the device"
        )
    if "compiled_s" in record:
        return f"{record['compiled_s']:.2f} s"
    ms = record.get("ms", record.get("ms_per_iteration"))
    if ms is None:
        return str(record.get("why", ""))
    said = f"{ms:.4g} ms"
    said += f", error {record['error']:.2g}" if "error" in record else ""
    return said + (f", WRONG: {record['wrong']}" if "wrong" in record else "")
