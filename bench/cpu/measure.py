"""A clock, the machine, and errors checked by code that shares nothing with the solver."""

import json
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench import RESULTS, ROOT


# what libraries ask for their number of threads, once, when they are loaded
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def marginal_error(P: Any, a: Any, b: Any) -> float:
    """Return the L1 error of both marginals of a plan, in float64, worst of a batch."""
    P, a64, b64 = np.asarray(P, np.float64), np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not np.isfinite(P).all():
        return float("inf")
    rows, columns = np.abs(P.sum(-1) - a64).sum(-1), np.abs(P.sum(-2) - b64).sum(-1)
    return float(np.max(rows + columns))


def clock(act: Callable[[], Any]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def alone(bench: str, *case: object) -> dict[str, Any]:
    """Print and return what `python -m bench NAME --one` measures in a process of its own.

    So its peak memory is its own.
    """
    command = [sys.executable, "-m", "bench", bench, "--one", *map(str, case)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    row: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print("  ".join(shown), flush=True)
    return row


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
