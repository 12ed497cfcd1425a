"""A cost that is not kept: its shape is known, and no number is."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor

from sinkhorn_ot.problem.rows import Block
from sinkhorn_ot.problem.show import shown

from .cost import Bounds


@shown
@dataclass(frozen=True, eq=False)
class Absent:
    """The cost of a result that was kept without it: what has to read it is refused.

    Attributes:
        batch_shape: Leading dimensions.
        shape: Number of source and target points.
        dtype: What the entries were stored as.
        like: A tensor where the numbers of the problem live.
    """

    batch_shape: torch.Size
    shape: tuple[int, int]
    dtype: torch.dtype
    like: Tensor

    @property
    def device(self) -> torch.device:
        """Where the problem lives."""
        return self.like.device

    @property
    def stored(self) -> bool:
        """Whether the entries are in memory: they are nowhere."""
        return False

    @property
    def memory(self) -> int:
        """Bytes of kernel that may be held: none."""
        return 0

    def flat(self, batch: torch.Size) -> "Absent":
        """Return it with one batch dimension."""
        one = self.batch_shape.numel() == 1
        return replace(self, batch_shape=torch.Size([1 if one else batch.numel()]))

    def select(self, index: Tensor) -> "Absent":
        """Return the problems at `index` of a flat batch."""
        return replace(self, batch_shape=torch.Size([index.numel()]))

    def transposed(self) -> "Absent":
        """Return the cost from target to source points."""
        return replace(self, shape=self.shape[::-1])

    def rows(self, start: int, stop: int) -> Tensor:
        """Refuse."""
        _refuse()

    def tiles(self, size: int) -> Iterator[Block]:
        """Refuse."""
        _refuse()

    def validate(self) -> Bounds:
        """Refuse."""
        _refuse()


def _refuse() -> NoReturn:
    raise ValueError(
        "cost was not kept with this result, and is read for this: give it, as in "
        "from_state_dict(state, cost=cost)"
    )
