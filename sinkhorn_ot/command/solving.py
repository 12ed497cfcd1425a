"""`solve`: the transport of a file of costs, or between two clouds."""

import argparse
import time
from typing import Any

from torch import Tensor

import sinkhorn_ot as so

from . import ending, files, many


def act(options: argparse.Namespace) -> int:
    """Solve, write and say how it ended."""
    start = time.perf_counter()
    _require(options)
    with many.group(options.device) as group:
        if group is not None and (options.exact or options.plan):
            raise ValueError(
                "--exact and --plan must not be given where rows are spread over ranks"
            )
        cost, n, m = _cost(options, group)
        a, b = files.vector("--a", options.a, n), files.vector("--b", options.b, m)
        own = many.share(n, group)
        a = a if a is None else a[own]
        weights = [w if w is None else w.to(options.device) for w in (a, b)]
        if options.exact:
            limits = {"max_iter": options.max_iter, "seconds": options.seconds}
            # the code that it ends with says how it ended
            found = so.solve_exact(cost, *weights, on_fail="ignore", **limits)
        else:
            found = so.solve(cost, *weights, **_asked(options, group))
        f = many.joined(found.f, group)
        if not many.first(group):
            return ending.CODES[max(found.statuses, key=lambda s: ending.CODES[s])]
        if options.out is not None:
            files.write(options.out, "f", **_written(found, f, options.plan))
        return ending.told(
            options,
            start,
            found.statuses,
            value=found.value,
            value_linear=found.value_linear,
            marginal_error=found.marginal_error,
            n_iter=found.n_iter,
            method=found.method,
        )


def _require(options: argparse.Namespace) -> None:
    """Require arguments that go together."""
    if (options.cost is None) == (options.points is None):
        raise ValueError("give a file of costs, or two of points with --points, and not both")
    if options.exact == (options.reg is not None):
        raise ValueError("give --reg, or --exact for a plan without, and not both")
    alone = {"--unbalanced": options.unbalanced, "--checkpoint": options.checkpoint}
    if options.exact and (given := [name for name, x in alone.items() if x is not None]):
        raise ValueError(f"{given[0]} must not be given with --exact")
    if options.seconds is not None and not options.exact:
        raise ValueError("--seconds must be given with --exact")
    if options.plan and options.out is None:
        raise ValueError("--plan must be given with --out, to which it is written")
    files.writable(options.out, ".npz")


def _cost(options: argparse.Namespace, group: Any) -> tuple[Any, int, int]:
    """Return this process's costs, and how many rows and columns there are in all."""
    dtype, device = options.dtype, options.device
    if options.points is not None:
        x, y = (files.mapped("--points", path, (2,)) for path in options.points)
        own = x[many.share(len(x), group)]
        left, right = (files.held(side, dtype, device) for side in (own, y))
        return so.PointCloud(left, right, options.metric), len(x), len(y)
    C = files.mapped("cost", options.cost, (2, 3))
    n, m = C.shape[-2:]
    own = C[..., many.share(n, group), :]
    if options.stream or (files.large(own) and not options.exact):
        return so.Streamed(files.blocks(own, dtype, device)), n, m
    return files.held(own, dtype, device), n, m


def _asked(options: argparse.Namespace, group: Any) -> dict[str, Any]:
    limits = {} if options.max_iter is None else {"max_iter": options.max_iter}
    asked = limits | {
        "reg": options.reg,
        "unbalanced": options.unbalanced,
        "method": options.method,
        "tol": options.tol,
        "on_fail": "ignore",
        "progress": options.progress and many.first(group),
        "checkpoint": options.checkpoint,
    }
    return asked if group is None else asked | {"group": group}


def _written(found: Any, f: Tensor | None, plan: bool) -> dict[str, Tensor | None]:
    return {
        "f": f,
        "g": found.g,
        "value": found.value,
        "value_linear": found.value_linear,
        "marginal_error": found.marginal_error,
        "n_iter": found.n_iter,
        "plan": found.plan if plan else None,
    }
