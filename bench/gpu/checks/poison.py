"""Poison for uninitialised memory, so that what is not written is seen."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill uninitialised memory with NaN."""
    owners: tuple[tuple[Any, str], ...] = (
        (torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty"),
    )  # fmt: skip
    kept = [getattr(owner, name) for owner, name in owners]
    for (owner, name), empty in zip(owners, kept, strict=True):
        setattr(owner, name, _filled(empty))
    try:
        yield
    finally:
        for (owner, name), empty in zip(owners, kept, strict=True):
            setattr(owner, name, empty)


def _filled(empty: Any) -> Any:
    def filled(*args: Any, **options: Any) -> Tensor:
        out: Tensor = empty(*args, **options)
        return out.fill_(math.nan) if out.is_floating_point() else out

    return filled
