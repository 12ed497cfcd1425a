"""Results on other devices and in other precisions: all that they are made of goes along."""

from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import Beside, Problem, Spread, checks
from sinkhorn_ot.results.coupling import Entropic
from sinkhorn_ot.results.graph import Through
from sinkhorn_ot.sweeps import afresh, passes

from .parts import INSIDE, again, held


def target(device: Any, dtype: Any) -> tuple[torch.device | None, torch.dtype | None]:
    """Return where to go and in which precision, whichever order they are given in.

    Raises:
        ValueError: If they are neither, or the device is not there.
    """
    if isinstance(device, torch.dtype):
        device, dtype = dtype, device
    if device is None and dtype is None:
        raise ValueError("to() needs a device, a dtype or both")
    wide = isinstance(dtype, torch.dtype) and dtype in (torch.float64, torch.float32)
    if dtype is not None and not wide:
        raise ValueError(f"dtype must be torch.float64 or torch.float32, got {dtype!r:.60}")
    return None if device is None else checks.device("device", device), dtype


def moved(result: Any, device: torch.device) -> Any:
    """Return a result with all that it is made of on a device; the same one if it is there."""
    tensors, problems = held(result, Tensor), held(result, Problem)
    source = tensors[0].device if tensors else torch.device("cpu")
    if source == device:
        return result
    # weights and potentials are as wide as a device's passes are; of a line they always are
    old, new = (problems[0].work, _work(problems[0], device)) if problems else (None, None)

    def act(part: Any, inner: Callable[[Any], Any]) -> Any:
        if isinstance(part, Tensor):
            return part.to(device, new if part.dtype == old else part.dtype)
        if isinstance(part, np.ndarray) and not problems:
            return torch.from_numpy(part).to(device)
        if isinstance(part, Entropic):
            return Entropic(afresh(inner(part.problem)), inner(part.u), inner(part.v))
        if isinstance(part, (Spread, Beside)):
            raise ValueError(
                "a result over a group cannot be moved, for its ranks hold their rows where these "
                "are: move what it tells, such as f and g"
            )
        if hasattr(part, "link"):
            whole: Any = part
            return Through(whole, lambda t: t.to(source, old), lambda t: t.to(device, new))
        return _cost(part, device) if hasattr(part, "tiles") else INSIDE

    return again(result, act)


def _work(p: Problem, device: torch.device) -> torch.dtype:
    """Return the dtype of weights and potentials inside, on a device."""
    wide = device.type == "cpu" or p.dtype == torch.float64 or p.cost.dtype == torch.float64
    return torch.float64 if wide else torch.float32


def _cost(cost: Any, device: torch.device) -> Any:
    """Return a cost on a device, whose numbers stay as they are stored."""
    if hasattr(cost, "to"):
        return cost.to(device)
    if is_dataclass(cost):
        return again(cost, lambda t, _: t.to(device) if isinstance(t, Tensor) else INSIDE)
    raise ValueError(
        f"cost must have a method to(device) for its result to be moved, got a "
        f"{type(cost).__name__}: move what it tells, such as f and g"
    )


def told_in(result: Any, dtype: torch.dtype) -> Any:
    """Return a result that tells its numbers in a dtype; inside they keep all their digits."""

    def act(part: Any, inner: Callable[[Any], Any]) -> Any:
        if isinstance(part, Problem):
            return replace(part, dtype=dtype)
        if isinstance(part, Entropic):
            sweep = passes(inner(part.problem), part.sweep)
            return Entropic(sweep, part.u, part.v, part.scaled)
        if hasattr(part, "tiles"):
            return part
        return dtype if isinstance(part, torch.dtype) else INSIDE

    return again(result, act)
