"""Counts what calls make the host do on a GPU, without one: launches, waits, and Python's time.

Tensors of the CPU pose as a card's, kernels run in triton's interpreter, and every launch, operator
and wait is counted. The counts are exact and the same on every machine. The microseconds are what
the package's own Python takes, with operators and launches left out; they are this machine's.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import RESULTS


Record = dict[str, Any]
HEADER = ("call", "size", "kernels", "operators", "waits", "sweeps", "launches a sweep",
          "Python, us", "PyTorch instead")  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--only", default="", help="only calls with this in their name")
    parser.add_argument("--out", type=Path, default=RESULTS / "host.json", help="the result")


def main(options: argparse.Namespace) -> None:
    """Print a line for each call, and write all of them."""
    # before anything imports triton
    os.environ["TRITON_INTERPRET"] = "1"
    from bench.host.calls import CALLS

    print(" | ".join(HEADER))
    found = []
    for call in CALLS:
        if options.only in call.name:
            found.append(counted(call))
            print(" | ".join(line(found[-1])), flush=True)
    if not options.only:
        rows = ",\n".join("  " + json.dumps(r) for r in found)
        options.out.write_text(f'{{"rows": [\n{rows}\n]}}\n')


def counted(call: Any) -> Record:
    """Return what a call makes the host do."""
    answer, seen, spent = watch(call.make, call.decides)
    record: Record = {
        "call": call.name, "size": call.size, "kernels": seen.kernels.total(),
        "operators": seen.operators.total(), "waits": seen.waits, "host_us": round(1e6 * spent),
        "by_kernel": dict(seen.kernels), "by_operator": dict(seen.operators.most_common()),
    }  # fmt: skip
    sweeps = getattr(answer, "n_iter", None)
    if sweeps is not None:
        record["sweeps"] = int(sweeps.max())
    if call.peer is not None:
        record["peer_operators"] = watch(call.peer, False)[1].operators.total()
    return record


def watch(make: Any, decides: bool) -> tuple[Any, Any, float]:
    """Return the answer of a call, what was seen, and seconds of the package's own Python."""
    from bench.host.pretend import on_card, watched

    act = make(on_card)
    # the interpreter takes log2(0) and 0 / 0 by NumPy, which would warn
    with np.errstate(all="ignore"):
        if not decides:
            # fills caches; a call whose kernels must run takes too long to make twice
            with watched(run=False):
                act()
        with watched(run=decides) as seen:
            start = time.perf_counter()
            answer = act()
            spent = time.perf_counter() - start
    return answer, seen, spent - seen.inside


def line(r: Record) -> list[str]:
    """Return the cells of a record."""
    launches, sweeps = r["kernels"] + r["operators"], r.get("sweeps", 0)
    each = f"{launches / sweeps:.1f}" if sweeps else ""
    told = (r["kernels"], r["operators"], r["waits"], sweeps or "", each, r["host_us"])
    return [r["call"], r["size"], *map(str, told), str(r.get("peer_operators", ""))]
