"""Problems of a batch, picked by the index that a tensor would be given."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem
from sinkhorn_ot.results.coupling import Entropic
from sinkhorn_ot.results.graph import Through
from sinkhorn_ot.sweeps import afresh

from .parts import INSIDE, again, held


def places(kind: str, batch: torch.Size, k: Any) -> Tensor:
    """Return the numbers in the flat batch of the problems at an index, in their new shape.

    Raises:
        TypeError: If there is no batch.
        IndexError: If the index does not fit the batch.
    """
    if not batch:
        raise TypeError(f"this {kind} is of one problem, not of a batch: it has no [k]")
    try:
        found: Any = np.arange(batch.numel()).reshape(batch)[_plain(k)]
    except IndexError as error:
        raise IndexError(f"k must fit a batch of {tuple(batch)}: {error}") from None
    return torch.from_numpy(np.array(found))


def _plain(k: Any) -> Any:
    """Return an index as NumPy takes it."""
    if isinstance(k, tuple):
        return tuple(map(_plain, k))
    return k.detach().cpu().numpy() if isinstance(k, Tensor) else k


def picked(result: Any, at: Tensor, batch: torch.Size) -> Any:
    """Return a result whose parts have an entry per problem of a flat batch, for some of these.

    Args:
        result: The result.
        at: Numbers of the problems, in the shape of the new batch.
        batch: The leading dimensions.
    """
    index, numbers = at.flatten(), at.flatten().tolist()
    tensors = held(result, Tensor)
    there = index.to(tensors[0].device) if tensors else index

    def act(part: Any, inner: Callable[[Any], Any]) -> Any:
        if isinstance(part, Problem):
            return replace(part.select(there), batch_shape=at.shape)
        if isinstance(part, Entropic):
            return Entropic(afresh(inner(part.problem)), part.u[there], part.v[there])
        if isinstance(part, Tensor):
            return part.index_select(0, there)
        if isinstance(part, np.ndarray):
            return part[index.numpy()]
        if isinstance(part, torch.Size):
            return at.shape
        if isinstance(part, list):
            return [part[k] for k in numbers]
        if isinstance(part, dict):
            return {i: part[k] for i, k in enumerate(numbers) if k in part}
        if hasattr(part, "link"):
            return _through(part, there, batch.numel())
        return INSIDE

    return again(result, act)


def _through(whole: Any, index: Tensor, size: int) -> Through:
    if len(set(index.tolist())) < len(index):
        raise ValueError(
            "k must name each problem once where an argument requires grad: pick from .detach(), "
            "or from the numbers themselves"
        )

    def put(t: Tensor) -> Tensor:
        return t.new_zeros(size, *t.shape[1:]).index_copy(0, index, t)

    return Through(whole, put, lambda t: t.index_select(0, index))


def picked_shaped(result: Any, at: Tensor, batch: torch.Size, common: tuple[str, ...]) -> Any:
    """Return a result whose tensors lead with the batch, lists flat, for some of its problems.

    Args:
        result: The result.
        at: Numbers of the problems, in the shape of the new batch.
        batch: The leading dimensions.
        common: Names of fields that all problems share.
    """
    found: dict[str, Any] = {}
    for name in (f.name for f in fields(result) if f.name not in common):
        part = getattr(result, name)
        if isinstance(part, Tensor):
            found[name] = part.flatten(0, len(batch) - 1)[at.to(part.device)]
        elif isinstance(part, list):
            found[name] = [part[k] for k in at.flatten().tolist()]
    return replace(result, **found)
