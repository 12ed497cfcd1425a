"""The state of an accelerated run over a batch: what it holds of each problem, kept and chosen."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor


S = TypeVar("S", bound="State")


class State:
    """What a run remembers.

    All its tensors, those in tuples and in states inside it too, have an entry per problem first.
    So the problems that still run are selected without a list of what there is.
    """

    def select(self: S, index: Tensor) -> S:
        """Return the state of the problems at `index`."""
        kept = copy.copy(self)
        for name, value in vars(self).items():
            setattr(kept, name, _selected(value, index))
        return kept


def _selected(value: Any, index: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[index]
    assert not isinstance(value, (list, dict, set)), "a state holds tensors, tuples and states"
    if isinstance(value, tuple):
        parts = (_selected(part, index) for part in value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    # the state of another acceleration; options have no problems to select
    return value.select(index) if hasattr(value, "select") else value


def pick(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Return `yes` for the problems in `mask` (B,), else `no`; both (B,) or (B, m).

    One problem on a CPU is no more than a question.
    """
    if len(mask) == 1 and mask.device.type == "cpu":
        return yes if mask.item() else no
    return torch.where(mask if yes.ndim == 1 else mask[:, None], yes, no)
