"""What tells one problem from another, without reading all of its cost."""

import hashlib
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import Cost, Problem, Streamed


# rows of a cost that are looked at, and entries of each
_ROWS, _ENTRIES = 8, 1 << 12


def fingerprint(problem: Problem, **more: object) -> dict[str, str]:
    """Return what is asked, in words where they are short.

    Neither the tolerance nor the sweeps allowed are in it: who asks for more goes on.

    Args:
        problem: Its shape, dtype, device, reg and weights, and some rows of its cost.
        more: What else the steps depend on, by name; tensors by their numbers.
    """
    batch, n, m = problem.shape
    return {
        "shape": f"{batch} x {n} x {m}",
        "dtype": str(problem.dtype).removeprefix("torch."),
        "device": problem.a.device.type,
        "reg": repr(problem.least_reg) if batch == 1 else _digest(problem.reg),
        "unbalanced": problem.asked if not problem.penalised else _digest(problem.penalties),
        "weights": _digest((problem.a, problem.b)),
        "cost": _digest(_looks(problem.cost, problem)),
        **{name: x if isinstance(x, str) else _digest(x) for name, x in more.items()},
    }


def _looks(cost: Cost, problem: Problem) -> list[Any]:
    """Return how a cost looks: where its numbers lie, and some of them."""
    n, m = cost.shape
    every = max(1, m // _ENTRIES)
    looks: list[Any] = [type(cost).__name__, tuple(problem.bounds)]
    if not isinstance(cost, Streamed):
        rows = range(0, n, max(1, n // _ROWS))
        return [*looks, *(cost.rows(row, row + 1)[..., ::every] for row in rows)]
    for index, block in cost.tiles(_ROWS):
        # what comes in any order comes in another one at the next pass
        if isinstance(index, slice):
            looks.append(block[..., ::every])
        break
    return looks


def _digest(value: Any) -> str:
    """Return a short digest of numbers, whatever holds them."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()[:16]


def _feed(sha: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        sha.update(f"{value.dtype}{tuple(value.shape)}".encode())
        sha.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    elif isinstance(value, (list, tuple)):
        sha.update(f"{len(value)}".encode())
        for part in value:
            _feed(sha, part)
    elif hasattr(value, "__dict__"):
        sha.update(type(value).__name__.encode())
        _feed(sha, [*vars(value).items()])
    else:
        sha.update(repr(value).encode())
