"""A family: cases by name, of which all or some are measured, printed and kept."""

import argparse
import contextlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits

from bench.cpu.measure import THREADS
from bench.ratios.row import Row, save


@dataclass(frozen=True)
class Cell:
    """A case of a family.

    Attributes:
        case: Its name, which no other one of the family has.
        measure: Returns the row; None where no peer is installed.
        full: Whether it is left out unless asked for.
    """

    case: str
    measure: Callable[[], Row | None]
    full: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument(
        "--only", metavar="TEXT", help="the case of this name, or those that contain it; not kept"
    )
    parser.add_argument("--full", action="store_true", help="the cases that take long too")


def chosen(cells: Iterable[Cell], only: str | None, full: bool) -> list[Cell]:
    """Return the cells asked for: a whole name is that cell alone."""
    known = list(cells)
    if any(cell.case == only for cell in known):
        return [cell for cell in known if cell.case == only]
    return [c for c in known if (full or not c.full) and (only is None or only in c.case)]


def measure(family: str, cells: Iterable[Cell], options: argparse.Namespace) -> int:
    """Print the rows of a family, and keep them if they are all; return an exit status."""
    found = chosen(cells, options.only, options.full)
    if not found:
        print(f"{family} has no case {options.only!r}")
        return 1
    rows, failed = [], 0
    with on_one_core():
        for cell in found:
            try:
                row = cell.measure()
            # one that fails does not cost the others, which may have taken long
            except Exception as error:  # noqa: BLE001
                print(f"{cell.case} failed: {error!r}", flush=True)
                failed += 1
                continue
            if row is not None:
                print(row, flush=True)
                rows.append(row)
    if options.only is None:
        print("written to", save(family, rows).name)
    return int(failed > 0)


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Give everyone one thread, whoever is loaded later too, and silence."""
    threads = torch.get_num_threads()
    os.environ.update(dict.fromkeys(THREADS, "1"))
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
