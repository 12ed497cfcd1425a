"""Ground costs: what it costs to move one unit from point i to point j, read in row blocks."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem.rows import Block, Index, at_once
from sinkhorn_ot.problem.show import shown


# entries of one row block: small enough for cache, large enough to hide the call
_BLOCK = 1 << 16
# bytes of kernel that are held where nobody says otherwise
MEMORY = 1 << 30


@shown
class Bounds(NamedTuple):
    """Where the entries of a cost lie.

    Attributes:
        low: No entry is smaller.
        high: No finite entry is larger.
        forbids: Whether some entry is inf.
    """

    low: float
    high: float
    forbids: bool = False


class Cost(Protocol):
    """A cost matrix, or a batch of them, that need not be stored.

    Its rows are read once it is `flat`: (B, n, m).
    """

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions, () for one matrix."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Number of source and target points."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Storage type of the numbers the caller gave."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the numbers live."""
        ...

    @property
    def stored(self) -> bool:
        """Whether the entries are in memory anyway."""
        ...

    @property
    def memory(self) -> int:
        """Bytes of kernel that may be held although the entries are not, or a batch shares them."""
        ...

    def flat(self, batch: torch.Size) -> "Cost":
        """Return one batch dimension: of size 1 if the whole `batch` shares a cost, else full."""
        ...

    def select(self, index: Tensor) -> "Cost":
        """Return the problems at `index` of a flat batch."""
        ...

    def transposed(self) -> "Cost":
        """Return the cost from target to source points."""
        ...

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows start:stop of a flat cost, (B, stop - start, m), as they are stored."""
        ...

    def tiles(self, size: int) -> Iterator[Block]:
        """Yield all rows of a flat cost in blocks of at most `size`, each with their numbers."""
        ...

    def validate(self) -> Bounds:
        """Raise on NaN or -inf; return bounds on the entries."""
        ...


def broadcast(name: str, shape: torch.Size, other: str, other_shape: torch.Size) -> torch.Size:
    """Return the common shape of two batches, or say which two do not fit."""
    if shape == other_shape:
        return shape
    try:
        return torch.Size(np.broadcast_shapes(shape, other_shape))
    except ValueError:
        raise ValueError(
            f"{name} and {other} must have leading dimensions that broadcast, "
            f"got {tuple(shape)} and {tuple(other_shape)}"
        ) from None


def within(name: str, shape: torch.Size, batch: torch.Size) -> None:
    """Require leading dimensions that broadcast to those of a problem and add none."""
    if broadcast(name, shape, "the problem", batch) != batch:
        raise ValueError(
            f"{name} must have leading dimensions that fit the problem's {tuple(batch)}, "
            f"got {tuple(shape)}"
        )


def flatten(t: Tensor, batch: torch.Size, one: bool) -> Tensor:
    """Return (..., n, k) as (1 or B, n, k); only a partly shared batch is copied."""
    matrix = t.shape[-2:]
    return (t if one else t.expand(*batch, *matrix)).reshape(1 if one else batch.numel(), *matrix)


def blocks(cost: Cost, batch: int, dtype: torch.dtype) -> Iterator[tuple[Index, Tensor]]:
    """Yield (rows, C) over the row blocks of a flat cost, each of a bounded size.

    Args:
        cost: A flat cost.
        batch: Problems that the caller holds beside each block.
        dtype: Dtype of the blocks.
    """
    entries = at_once(cost.device, _BLOCK)
    for rows, C in cost.tiles(max(1, entries // (cost.shape[1] * max(1, batch)))):
        yield rows, C.to(dtype)


def tiles(cost: Cost, size: int) -> Iterator[Block]:
    """Yield all rows of a flat cost that can be read anywhere, in blocks of at most `size`."""
    n, _ = cost.shape
    for start in range(0, n, size):
        rows = slice(start, min(n, start + size))
        yield rows, cost.rows(rows.start, rows.stop)
