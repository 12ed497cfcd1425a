"""The processes that torchrun starts: each takes its rows of a file, and the first one writes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def group(device: str) -> Iterator[Any]:
    """Return the process group that torchrun describes; None where this process is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield dist.group.WORLD if dist.is_initialized() else None
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def share(n: int, group: Any) -> slice:
    """Return which of n rows this process takes."""
    if group is None:
        return slice(0, n)
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    return slice(n * rank // world, n * (rank + 1) // world)


def first(group: Any) -> bool:
    """Say whether this is the process that writes."""
    return group is None or dist.get_rank(group) == 0


def joined(x: Tensor | None, group: Any, dim: int = -1) -> Tensor | None:
    """Return the rows of all processes; on those that do not write, their own."""
    if group is None or x is None:
        return x
    parts: list[Any] = [None] * dist.get_world_size(group)
    dist.gather_object(x.cpu(), parts if first(group) else None, group=group)
    return torch.cat(parts, dim) if first(group) else x
