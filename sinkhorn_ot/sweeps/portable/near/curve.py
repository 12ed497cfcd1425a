"""The entries of a plan that count for its curve, held in compressed rows, block by block."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import needs, shown

from .live import Part
from .tree import Blocks


# bytes of the place of an entry that is held, and entries that are held together at least
_BYTES, _MANY = 4, 1 << 22


@shown
class Held(NamedTuple):
    """Some rows of a plan.

    Attributes:
        kernel: The entries, (r, m), in compressed rows.
        share: One over the row sums, (r,); zero where there is none.
    """

    kernel: Any
    share: Any


class Curve:
    """P^T diag(1 / P 1) P, of a plan whose columns are in order."""

    def __init__(self, held: list[Held], gathered: Tensor) -> None:
        self._held, self.gathered = held, gathered

    @staticmethod
    def build(parts: Iterator[Part], columns: Blocks, faint: float, most: int) -> "Curve | None":
        """Hold what counts of exponentiated parts; None where that takes more than it may.

        Args:
            parts: The plan, in the precision in which it is to be held.
            columns: Columns in order.
            faint: Beside its row's sum, the logarithm of an entry that can be missed.
            most: Bytes that entries may take.
        """
        held, rows, size, m = [], Rows(), 0, len(columns.order)
        gathered = torch.zeros(len(columns), len(columns), dtype=torch.float64)
        for _, near, places, plan in parts:
            P, counts = plan.numpy(), columns.sizes[near].numpy()
            sums = np.add.reduceat(P, counts.cumsum() - counts, axis=1)
            mass = sums.sum(1, keepdims=True)
            share = np.divide(1.0, mass, out=np.zeros_like(mass), where=mass > 0)
            gathered[near[:, None], near] += torch.from_numpy(sums.T @ (share * sums)).double()
            size += (_BYTES + P.itemsize) * rows.add(
                P, mass * math.exp(faint) < P, places.numpy(), share[:, 0]
            )
            if size > most:
                return None
            if rows.count >= _MANY:
                held.append(rows.held(m))
                rows = Rows()
        return Curve([*held, rows.held(m)] if rows.count else held, gathered)

    def sparse(self, most: int) -> Any | None:
        """Return the matrix in compressed columns; None where that takes more than it may.

        Args:
            most: Multiplications that it may take.
        """
        with needs("scipy"):
            from scipy.sparse import diags_array

        lengths = [np.diff(kernel.indptr) for kernel, _ in self._held]
        taken = sum(np.square(length, dtype=float).sum() for length in lengths)
        if taken > most or not self._held:
            return None
        halves = (diags_array(np.sqrt(share)) @ kernel for kernel, share in self._held)
        return sum((half.T @ half).tocsc() for half in (h.astype(float) for h in halves))

    def product(self, x: Tensor) -> Tensor:
        """Return the product with x (m,)."""
        out, given = np.zeros(len(x)), x.numpy()
        for kernel, share in self._held:
            out += kernel.T @ (share * (kernel @ given))
        return torch.from_numpy(out)


class Rows:
    """Rows that are gathered, to be held together."""

    def __init__(self) -> None:
        self.count = 0
        self._values: list[Any] = []
        self._places: list[Any] = []
        self._lengths: list[Any] = []
        self._shares: list[Any] = []

    def add(self, P: Any, live: Any, places: Any, share: Any) -> int:
        """Take what counts of some rows, (r, c), in columns at `places`; return how much it is."""
        # to take by place is many times quicker than to select by a mask
        at, lengths = np.flatnonzero(live), np.count_nonzero(live, axis=1)
        column = at - np.repeat(P.shape[1] * np.arange(len(P)), lengths)
        self._values.append(P.ravel().take(at))
        self._places.append(places.take(column).astype(np.int32))
        self._lengths.append(lengths)
        self._shares.append(share)
        self.count += len(at)
        return len(at)

    def held(self, m: int) -> Held:
        """Return the rows, of m columns."""
        # imported here: a solve without products with the curve never pays for it
        with needs("scipy"):
            from scipy.sparse import csr_array

        starts = np.concatenate(([0], *self._lengths)).cumsum(dtype=np.int32)
        parts = np.concatenate(self._values), np.concatenate(self._places), starts
        return Held(csr_array(parts, (len(starts) - 1, m)), np.concatenate(self._shares))
