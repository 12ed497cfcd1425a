"""A cost that is stored, and what a caller's tensor or array becomes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import TypeIs

from sinkhorn_ot.problem import checks
from sinkhorn_ot.problem.rows import ArrayLike, Block, entries
from sinkhorn_ot.problem.show import shown

from .cost import MEMORY, Bounds, Cost, flatten, tiles


@shown
@dataclass(frozen=True, eq=False, init=False)
class Dense:
    """A stored cost matrix.

    Args:
        C: Costs, shape (..., n, m). An entry of inf forbids the pair.
    """

    C: Tensor

    def __init__(self, C: ArrayLike) -> None:
        object.__setattr__(self, "C", _matrices("C", C))

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions."""
        return self.C.shape[:-2]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of source and target points."""
        return self.C.shape[-2], self.C.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """Storage type of the entries."""
        return self.C.dtype

    @property
    def device(self) -> torch.device:
        """Where the entries live."""
        return self.C.device

    @property
    def stored(self) -> bool:
        """Whether the entries are in memory: they are."""
        return True

    @property
    def memory(self) -> int:
        """Bytes of kernel that may be held for a batch that shares the cost."""
        return MEMORY

    def flat(self, batch: torch.Size) -> "Dense":
        """Return the costs of a batch with one batch dimension."""
        C = checks.constant("cost", self.C)
        return self._of(flatten(C, batch, self.batch_shape.numel() == 1))

    def select(self, index: Tensor) -> "Dense":
        """Return the problems at `index` of a flat batch."""
        return self._of(self.C[entries(index)])

    def first(self, n: int, m: int) -> "Dense":
        """Return the cost between the first points, without a copy."""
        return self._of(self.C[..., :n, :m])

    def transposed(self) -> "Dense":
        """Return the cost from target to source points, without a copy."""
        return self._of(self.C.mT)

    @property
    def whole(self) -> Tensor:
        """All entries, that may be read."""
        return self.fill(self.C)

    def fill(self, C: Tensor) -> Tensor:
        """Return what these entries are with others in their place, (..., n, m)."""
        return C

    @staticmethod
    def _of(C: Tensor) -> "Dense":
        """Return costs that are part of what has been checked."""
        cost = object.__new__(Dense)
        object.__setattr__(cost, "C", C)
        return cost

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows start:stop."""
        return self.C[:, start:stop]

    def tiles(self, size: int) -> Iterator[Block]:
        """Yield all rows in blocks of at most `size`."""
        return tiles(self, size)

    def validate(self) -> Bounds:
        """Raise on NaN or -inf; return the extreme entries."""
        return Bounds(*checks.cost_entries("cost", checks.constant("cost", self.C)))


def _matrices(name: str, given: ArrayLike) -> Tensor:
    """Return costs (..., n, m) as a tensor."""
    C = checks.tensor(name, given, graph=True)
    if C.ndim == 1:
        raise ValueError(
            f"{name} must have shape (..., n, m), got {tuple(C.shape)}: the cost comes first, as "
            "in solve(cost, a, b, reg)"
        )
    return checks.at_least_dims(name, C, 2, "(..., n, m)")


def as_cost(cost: ArrayLike | Cost) -> Cost:
    """Return a cost object, of some rows: a tensor or an array becomes `Dense`."""
    if not _is_cost(cost):
        return Dense(_matrices("cost", cost))
    # where others hold rows, these may be none
    if cost.shape[0] == 0:
        points = getattr(cost, "x", None)
        name, shape = "cost", (*cost.batch_shape, *cost.shape)
        if points is not None:
            name, shape = "x", tuple(points.shape)
        raise ValueError(f"{name} must not be empty, got shape {shape}")
    return cost


def _is_cost(cost: ArrayLike | Cost) -> TypeIs[Cost]:
    return hasattr(cost, "tiles")
