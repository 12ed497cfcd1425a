"""The state of a run over a batch: what it holds of each problem, chosen, told and taken up again.

Whoever keeps states knows none of them: they are told as tensors, numbers and text, in lists and
dicts. What is taken up again makes the same steps, to the last bit where the sweeps do.
"""

import copy
import enum
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.results import Solution, Status, Stranded


C = TypeVar("C", bound=type)
S = TypeVar("S", bound="State")
# tensors, numbers and text, in lists and dicts
Memory = Any


class Keeper(Protocol):
    """Who keeps where the runs of a solve stand, one after the other.

    The same call makes the same runs in the same order.
    """

    def begin(self, *limits: float) -> tuple[Solution | None, Memory]:
        """Begin the next run: return how it ended within these limits, or where it stood."""
        ...

    def keep(self, n_iter: int, tell: Callable[[], Memory], now: bool) -> None:
        """Keep where a run stands, which `tell` says, `now` or if it is time."""
        ...

    def end(self, found: Solution) -> None:
        """Keep how the run ended."""
        ...

    def answer(self, *limits: float) -> tuple[Solution, str] | None:
        """Return how the solve ended within these limits, and its method; None if it has not."""
        ...

    def finish(self, found: Solution, name: str, *limits: float) -> None:
        """Keep how the solve ended, and by which method."""
        ...


class State:
    """What a run remembers.

    All its tensors, those in tuples and in states inside it too, have an entry per problem first.
    So the problems that still run are selected without a list of what there is.
    """

    # what a state may hold beside numbers and tensors, by name
    kinds: ClassVar[dict[str, Any]] = {
        kind.__name__: kind for kind in (tuple, slice, Solution, Status, Stranded)
    }

    def __init_subclass__(cls) -> None:
        holdable(cls)

    def select(self: S, index: Tensor) -> S:
        """Return the state of the problems at `index`."""
        kept = copy.copy(self)
        for name, value in vars(self).items():
            setattr(kept, name, _selected(value, index))
        return kept


def holdable(kind: C) -> C:
    """Let states hold objects of a class."""
    State.kinds[kind.__name__] = kind
    return kind


def told(value: Any) -> Memory:
    """Return what a run remembers as tensors, numbers and text, in lists and dicts."""
    if value is None or isinstance(value, (Tensor, torch.dtype, bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [told(part) for part in value]
    parts: Any
    if isinstance(value, np.ndarray):
        parts = torch.from_numpy(value)
    elif isinstance(value, enum.Enum):
        parts = value.name
    elif isinstance(value, slice):
        parts = [value.start, value.stop, value.step]
    elif isinstance(value, tuple):
        parts = [told(part) for part in value]
    elif isinstance(value, dict):
        parts = [[key, told(part)] for key, part in value.items()]
    elif not hasattr(value, "__dict__") or (callable(value) and not hasattr(value, "select")):
        kind = type(value).__name__
        raise ValueError(f"a checkpoint must hold tensors, numbers and states, got a {kind}")
    else:
        parts = {name: told(part) for name, part in vars(value).items()}
    return {"kind": type(value).__name__, "holds": parts}


def taken(memory: Memory, like: Any = None) -> Any:
    """Return what was told.

    Args:
        memory: What `told` returned.
        like: The same as it begins: kinds that nobody knows are those that it has.
    """
    if isinstance(memory, list):
        return [taken(part) for part in memory]
    if not isinstance(memory, dict):
        return memory
    name, parts = memory["kind"], memory["holds"]
    if name == "ndarray":
        return parts.cpu().numpy()
    if name == "dict":
        return {key: taken(part) for key, part in parts}
    kind = type(like) if type(like).__name__ == name else State.kinds.get(name)
    if kind is None:
        raise ValueError(f"checkpoint holds a {name}, which this call knows nothing of")
    if issubclass(kind, enum.Enum):
        return kind[parts]
    if isinstance(parts, list):
        several = [taken(part) for part in parts]
        return tuple(several) if kind is tuple else kind(*several)
    made = object.__new__(kind)
    vars(made).update({k: taken(part, getattr(like, k, None)) for k, part in parts.items()})
    return made


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
