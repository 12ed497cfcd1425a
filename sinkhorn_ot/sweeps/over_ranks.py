"""The primitive over ranks: each sweeps its own rows, and every sum over rows is all-reduced.

Ranks may hold different numbers of rows, and none. What a solver decides on are sums over all rows,
the same on every rank, so that no rank goes another way.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .protocol import Sweep


Group = Any
T = TypeVar("T")

# a sum below this has lost digits to underflow on every rank
_TINY = 1e-30


class OverRanks:
    """A sweep over the rows of all ranks: one reduction of column sums each."""

    def __init__(self, local: Sweep, group: Group) -> None:
        self._local, self._group = local, group
        self.problem = local.problem

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move this rank's rows, then sum the columns over all ranks."""
        u, log_s = self._local.sweep(u, v)
        # with exact rows no column sum exceeds the mass
        s = self._sum(log_s.exp())
        if bool(((s < _TINY) & (v > -math.inf)).any()):
            return u, self._log_sum(log_s)
        return u, s.log()

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg) of this rank's rows."""
        return self._local.log_sum_rows(v)

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg) over the rows of all ranks."""
        return self._log_sum(self._local.log_sum_columns(u))

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x for this rank's rows, or P^T @ x summed over all."""
        y = self._local.apply(u, v, x, transpose)
        return self._sum(y) if transpose else y

    def curve(self, u: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        """Return P^T diag(1 / P 1) P over all rows, or its product with x."""
        return self._sum(self._local.curve(u, v, x))

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C> over all rows."""
        return self._sum(self._local.linear(u, v))

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x over the rows of all ranks."""
        return self._sum(self._local.total(x))

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return OverRanks(self._local.at(reg), self._group)

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        return OverRanks(self._local.select(index), self._group)

    def _sum(self, x: Tensor) -> Tensor:
        return reduced(x, self._group)

    def _log_sum(self, log_s: Tensor) -> Tensor:
        top = reduced(log_s, self._group, dist.ReduceOp.MAX)
        shift = top.masked_fill(top == -math.inf, 0.0)
        return self._sum((log_s - shift).exp()).log() + shift


def reduced(x: Tensor, group: Group, op: Any = dist.ReduceOp.SUM) -> Tensor:
    """Return `x` summed over the ranks; itself without a group."""
    if group is None:
        return x
    out = x.clone(memory_format=torch.contiguous_format)
    _answered(lambda: dist.all_reduce(out, op=op, group=group))
    return out


def everywhere(group: Group, act: Callable[[], T], tell: Callable[[T], Any]) -> tuple[T, list[Any]]:
    """Act on every rank; what one raises, all raise.

    Args:
        group: The ranks, or None for this process alone.
        act: What to do.
        tell: What the other ranks are told of its result; it must pickle.

    Returns:
        This rank's result, and what all ranks told, in their order.
    """
    if group is None:
        own = act()
        return own, [tell(own)]
    result: list[T] = []
    told = error = None
    try:
        result.append(act())
        told = tell(result[0])
    except (ValueError, RuntimeError, OSError) as caught:
        error = str(caught)
    said: list[Any] = [None] * dist.get_world_size(group)
    _answered(lambda: dist.all_gather_object(said, (told, error), group=group))
    for rank, (_, wrong) in enumerate(said):
        if wrong is not None:
            raise ValueError(f"{wrong} (on rank {rank})")
    return result[0], [told for told, _ in said]


def agreed(said: list[dict[str, Any]]) -> None:
    """Require all ranks to tell the same of every name."""
    for name, value in said[0].items():
        values = [told[name] for told in said]
        if any(other != value for other in values):
            shown = ", ".join(f"{v!r:.60}" for v in values)
            raise ValueError(f"{name} must be the same on all ranks, got {shown}")


def first_rank(group: Group) -> bool:
    """Whether this is the group's first rank."""
    return group is None or dist.get_rank(group) == 0


def any_of(
    group: Group, act: Callable[[Any], Any] | None, device: torch.device
) -> Callable[[Any], Any] | None:
    """Return a callback that is true on all ranks where it is on one."""
    if group is None or act is None:
        return act

    def told(progress: Any) -> bool:
        said = torch.tensor([bool(act(progress))], dtype=torch.float32, device=device)
        return bool(reduced(said, group))

    return told


def _answered(call: Callable[[], Any]) -> None:
    try:
        call()
    except RuntimeError as error:
        raise RuntimeError(
            "a rank of the group does not answer: it failed, or came to another call"
        ) from error
