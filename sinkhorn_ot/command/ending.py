"""How a command ends: a summary on its output, and a number for the shell."""

import argparse
import json
import time
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.results import Status


BAD_INPUT, NO_PLAN, INTERRUPTED = 2, 5, 130
CODES = {
    Status.OPTIMAL: 0,
    Status.CONVERGED: 0,
    Status.FIXED: 0,
    Status.MAX_ITER: 3,
    Status.BUDGET: 3,
    Status.STALLED: 4,
    Status.INFEASIBLE: NO_PLAN,
    Status.NOT_FINITE: 6,
}


def told(options: argparse.Namespace, start: float, statuses: list[Status], **numbers: Any) -> int:
    """Print the summary and return the code of the worst status.

    Args:
        options: Whether to print JSON, and where the rest was written.
        start: When it began, in seconds of `time.perf_counter`.
        statuses: How each problem ended.
        numbers: What else there is to say, by name; None is left out.
    """
    worst = max(statuses, key=lambda status: CODES[status])
    said: dict[str, Any] = {"status": worst.name.lower()}
    said |= {name: _plain(x) for name, x in numbers.items() if x is not None}
    said["seconds"] = round(time.perf_counter() - start, 3)
    if options.out is not None:
        said["out"] = str(options.out)
    if options.json:
        print(json.dumps(said))
    else:
        width = max(map(len, said))
        for name, value in said.items():
            print(f"{name:{width}}  {_short(value)}")
        if CODES[worst]:
            print(worst.value)
    return CODES[worst]


def _plain(x: Any) -> Any:
    return x.tolist() if isinstance(x, Tensor) else x


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        t = torch.tensor(value, dtype=torch.float64)
        return f"{float(t.min()):.9g} to {float(t.max()):.9g}, of {len(value)}"
    if isinstance(value, list):
        return " ".join(map(_short, value))
    return f"{value:.9g}" if isinstance(value, float) else str(value)
