"""What tells one problem from another: a checksum of all its numbers."""

import hashlib
import zlib
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import Cost, Problem


# entries of a cost that are read together
_ENTRIES = 1 << 22


def fingerprint(problem: Problem, **more: object) -> dict[str, str]:
    """Return what is asked, in words where they are short.

    Neither the tolerance nor the sweeps allowed are in it: who asks for more goes on.

    Args:
        problem: Its shape, dtype, device, reg, weights and cost, which is read once.
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
        "cost": _digest(_numbers(problem.cost)),
        **{name: x if isinstance(x, str) else _digest(x) for name, x in more.items()},
    }


def _numbers(cost: Cost) -> list[Any]:
    """Return all that a cost is made of; of one that is only read, a checksum of each row."""
    told: list[Any] = [type(cost).__name__]
    if is_dataclass(cost):
        return told + [getattr(cost, f.name) for f in fields(cost) if f.name != "memory"]
    sums = torch.zeros(cost.shape[0], dtype=torch.int64)
    for index, block in cost.tiles(max(1, _ENTRIES // cost.shape[1])):
        # rows may come in any order, and in another one at each pass
        rows = block.movedim(-2, 0).detach().cpu().contiguous()
        found = [zlib.crc32(row) for row in rows.flatten(1).view(torch.uint8).numpy()]
        sums[index.cpu() if isinstance(index, Tensor) else index] = torch.tensor(found)
    return [*told, sums]


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
