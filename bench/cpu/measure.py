"""Timing beside a peer, and errors checked by code that shares nothing with the solver."""

import json
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench import RESULTS


# seconds spent on one pair, about
PATIENCE = 30.0


def marginal_error(P: Any, a: Any, b: Any) -> float:
    """Return the L1 error of both marginals of a plan, in float64, worst of a batch."""
    P, a64, b64 = np.asarray(P, np.float64), np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not np.isfinite(P).all():
        return float("inf")
    rows, columns = np.abs(P.sum(-1) - a64).sum(-1), np.abs(P.sum(-2) - b64).sum(-1)
    return float(np.max(rows + columns))


@dataclass(frozen=True)
class Pair:
    """Seconds of two functions run in turn."""

    ours: float
    peer: float
    ratio: float


def in_turn(ours: Callable[[], Any], peer: Callable[[], Any], runs: int) -> Pair:
    """Run both in turn, once to warm up; return medians and the median ratio peer / ours.

    Where a turn is long there are fewer of them, and nothing to warm up.
    """
    seconds = [(clock(ours), clock(peer))]
    turn = sum(seconds[0])
    if turn < PATIENCE:
        seconds = [(clock(ours), clock(peer)) for _ in range(min(runs, 1 + int(PATIENCE / turn)))]
    mine, theirs = zip(*seconds, strict=True)
    ratio = statistics.median(t / m for m, t in seconds)
    return Pair(statistics.median(mine), statistics.median(theirs), ratio)


def clock(act: Callable[[], Any]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def machine() -> dict[str, str]:
    """Return what the figures were measured on."""
    import ot

    return {
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "POT": ot.__version__,
    }


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def save(name: str, rows: list[dict[str, Any]]) -> pathlib.Path:
    """Write rows and the machine as JSON under results/."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return path
