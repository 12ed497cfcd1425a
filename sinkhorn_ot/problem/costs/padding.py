"""A stored cost with padding, of which nothing is copied but what is read."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import checks
from sinkhorn_ot.problem.rows import entries
from sinkhorn_ot.problem.show import shown

from .cost import Bounds, flatten
from .dense import Dense


# entries that are looked at together
_LOOK = 1 << 16


@shown
@dataclass(frozen=True, eq=False)
class Padded(Dense):
    """A stored cost whose padding is read as a cost of the same problem.

    Args:
        C: Costs, shape (..., n, m), with anything in the padding.
        there: Which rows and which columns are, (..., n) and (..., m).
        instead: What stands in the padding, (..., 1, 1).
    """

    there: tuple[Tensor, Tensor]
    instead: Tensor

    def flat(self, batch: torch.Size) -> "Padded":
        """Return the costs of a batch with one batch dimension."""
        one = self.batch_shape.numel() == 1
        rows, columns = (flatten(t[..., None], batch, one)[..., 0] for t in self.there)
        C = flatten(checks.constant("cost", self.C), batch, one)
        return self._part(C, rows, columns, flatten(self.instead, batch, one))

    def select(self, index: Tensor) -> "Padded":
        """Return the problems at `index` of a flat batch."""
        at, (rows, columns) = entries(index), self.there
        return self._part(self.C[at], rows[at], columns[at], self.instead[at])

    def transposed(self) -> "Padded":
        """Return the cost from target to source points, without a copy."""
        rows, columns = self.there
        return self._part(self.C.mT, columns, rows, self.instead)

    def first(self, n: int, m: int) -> "Padded":
        """Return the cost between the first points, without a copy."""
        rows, columns = self.there
        return self._part(self.C[..., :n, :m], rows[..., :n], columns[..., :m], self.instead)

    @staticmethod
    def _part(C: Tensor, rows: Tensor, columns: Tensor, instead: Tensor) -> "Padded":
        """Return costs that are part of what has been checked."""
        cost = object.__new__(Padded)
        for name, part in (("C", C), ("there", (rows, columns)), ("instead", instead)):
            object.__setattr__(cost, name, part)
        return cost

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows start:stop."""
        rows, columns = self.there
        pairs = rows[:, start:stop, None] & columns[:, None, :]
        return torch.where(pairs, self.C[:, start:stop], self.instead)

    def fill(self, C: Tensor) -> Tensor:
        """Return what these entries are with others in the padding; a function of those there."""
        rows, columns = self.there
        return torch.where(rows[..., :, None] & columns[..., None, :], C, self.instead)

    def validate(self) -> Bounds:
        """Raise on NaN or -inf; return the extreme entries of what is there."""
        ends = np.array([checks.extremes(part) for part in self._parts()])
        low, high = float(ends.min()), float(ends.max())
        if math.isfinite(low) and high < math.inf:
            return Bounds(low, high)
        return Bounds(*checks.cost_entries("cost", checks.constant("cost", self.whole)))

    def _parts(self) -> list[Tensor]:
        """Return what is there and little more, some problems at a time."""
        n, m = self.shape
        C, instead = self.C.detach().reshape(-1, n, m), self.instead.reshape(-1, 1, 1)
        rows, columns = (t.reshape(-1, t.shape[-1]) for t in self.there)
        many, found = max(1, _LOOK // (n * m)), []
        for start in range(0, len(C), many):
            at = slice(start, start + many)
            i, j = last(rows[at]), last(columns[at])
            few, there = C[at, :i, :j], rows[at, :i, None] & columns[at, None, :j]
            found.append(few if bool(there.all()) else torch.where(there, few, instead[at]))
        return found


def padded(C: Tensor, rows: Tensor, columns: Tensor) -> Dense:
    """Return a cost (..., n, m) whose padding may be read, a function of what is there.

    A cost that problems with other points share is there where one of them has a pair.

    Args:
        C: Costs, with anything in the padding.
        rows: Which rows are there, (..., n).
        columns: Which columns are there, (..., m).
    """
    batch = C.shape[:-2]
    lead = np.broadcast_shapes(rows.shape[:-1], columns.shape[:-1])
    if np.broadcast_shapes(lead, batch) == batch and C.device.type == "cpu":
        rows, columns = rows.expand(C.shape[:-1]), columns.expand(*batch, -1)
        return Padded(C, (rows, columns), _some_cost(C, _first(rows), columns[..., None, :]))
    pairs = _pairs(rows, columns, batch).expand(C.shape)
    row = _first(pairs.any(-1))
    instead = _some_cost(C, row, pairs.gather(-2, _at(row, C)))
    return Dense(torch.where(pairs, C, instead))


def last(there: Tensor) -> int:
    """Return how many first points hold all that are there, of any problem, (B, n)."""
    return there.shape[1] - int(there.any(0).numpy()[::-1].argmax())


def some(there: Tensor, batch: torch.Size, inner: int = 1) -> Tensor:
    """Return what is true of some of the problems that share what a batch has."""
    more = there.ndim - inner - len(batch)
    there = there.flatten(0, more - 1).any(0) if more > 0 else there
    for k in range(-inner - 1, -there.ndim - 1, -1):
        if batch[k + inner] == 1:
            there = there.any(k, keepdim=True)
    return there


def repeated(x: Tensor, there: Tensor) -> Tensor:
    """Return points (..., n, d) with one of them wherever there is none, so that bounds stay."""
    there = some(there, x.shape[:-2]).expand(x.shape[:-1])
    return torch.where(there[..., None], x, x.detach().gather(-2, _at(_first(there), x)))


def _pairs(rows: Tensor, columns: Tensor, batch: torch.Size) -> Tensor:
    """Return which pairs some problem has, for each cost of a batch."""
    if batch.numel() > 1:
        return some(rows[..., :, None] & columns[..., None, :], batch, 2)
    lead = np.broadcast_shapes(rows.shape[:-1], columns.shape[:-1])
    left, right = (
        t.expand(*lead, t.shape[-1]).reshape(-1, t.shape[-1]).float() for t in (rows, columns)
    )
    return left.mT @ right > 0


def _first(there: Tensor) -> Tensor:
    """Return the number of the first that is there, (...)."""
    return there.to(torch.uint8).argmax(-1)


def _at(number: Tensor, t: Tensor) -> Tensor:
    """Return the index by which one row (..., 1, k) is gathered from (..., n, k)."""
    return number[..., None, None].expand(*t.shape[:-2], 1, t.shape[-1])


def _some_cost(C: Tensor, row: Tensor, there: Tensor) -> Tensor:
    """Return the least of a row, among what is there; any number, where that forbids all."""
    first = torch.where(there, C.detach().gather(-2, _at(row, C)), math.inf)
    return first.amin(-1, keepdim=True).nan_to_num(0.0, 0.0, 0.0)
