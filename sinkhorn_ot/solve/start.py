"""Where a solve starts: from the potentials of an earlier one, or from some that are given."""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypeAliasType

from sinkhorn_ot.problem import ArrayLike, Problem, checks, within
from sinkhorn_ot.results import Transport


# an earlier result, or potentials of both sides, one of which may be left out
Start = TypeAliasType("Start", Transport | tuple[ArrayLike | None, ArrayLike | None])

# what starts are called
_SIDES = ("source", "target")


def warm(problem: Problem, init: Any) -> tuple[Tensor | None, Tensor | None]:
    """Return the scaled potentials of an earlier result or of a pair (f, g)."""
    if isinstance(init, Transport):
        init = init.f, init.g
    if not (isinstance(init, (tuple, list)) and len(init) == 2) or all(p is None for p in init):
        raise ValueError(f"init must be a result or a pair (f, g), got {type(init).__name__}")
    f, g = init
    return _scaled(problem, f, 0), _scaled(problem, g, 1)


def _scaled(problem: Problem, potential: Any, side: int) -> Tensor | None:
    """Return (potential - shift) / reg + log weight of a side, (B, size)."""
    if potential is None:
        return None
    weight, shift = (problem.a, problem.b)[side], problem.shifts[side]
    size = weight.shape[-1]
    if isinstance(potential, Tensor):
        # where a solve starts does not change where it ends
        potential = checks.own("init", potential).detach()
    t = checks.tensor("init", potential)
    # rows may all be held by others
    t = checks.at_least_dims("init", t, 1, f"(..., {size})") if size else t
    if t.shape[-1:] != (size,):
        raise ValueError(f"init must hold {size} {_SIDES[side]} potentials, got {tuple(t.shape)}")
    checks.same_device("init", t, problem.b.device, "cost")
    within("init", t.shape[:-1], problem.batch_shape)
    if problem.there is not None:
        t = torch.where(problem.there[side].view(*problem.batch_shape, size), t, 0.0)
    t = checks.finite("init", t) if size else t
    t = t.to(problem.work).expand(*problem.batch_shape, size)
    return (t.reshape(weight.shape) - shift) / problem.reg[:, None] + weight.log()
