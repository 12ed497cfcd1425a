"""Which pairs of blocks count, and passes over those alone.

Whether a pair of blocks may count is judged by a bound on what it carries at most, relative to its
rows. What was left out is bounded again after every pass, by the row sums that were found, and
judged anew where that is too much.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sinkhorn_ot.problem import shown
from sinkhorn_ot.sweeps.portable.blockwise import TINY
from sinkhorn_ot.sweeps.portable.cpu import exp_

from .bounds import above, most
from .tree import Blocks


# pairs whose exponents are formed together
_TILE = 1 << 17
# how much potentials may rise before blocks are judged again
_MARGIN = 6.0
# blocks of columns that a first look at the row sums takes
_FIRST = 3
# judgements of one potential after which every pair counts
_TRIES = 4


@shown
class Judged(NamedTuple):
    """Which pairs of blocks may count around a potential.

    Attributes:
        live: (rows, columns), bool.
        cut: Logarithm of what the others come to at most, beside a row's sum, (rows,).
        v: The column potential that was judged, (m,).
        sums: Logarithms of the row sums that were taken for known, (n,).
    """

    live: Tensor
    cut: Tensor
    v: Tensor
    sums: Tensor


# told of rows, columns, a base per row, exponentials less that, and logarithms of row sums
Carried = Callable[[slice, Tensor, Tensor, Tensor, Tensor], None]


class Live:
    """Passes over the pairs of blocks that count at a potential; all numbers in order."""

    def __init__(
        self,
        trees: tuple[Blocks, Blocks],
        factors: tuple[Tensor, Tensor],
        reg: float,
        lost: float,
        sums: Tensor | None = None,
    ) -> None:
        """Begin.

        Args:
            trees: Rows and columns.
            factors: Numbers per point, (n, k) and (m, k), whose products are the costs.
            reg: What costs are divided by.
            lost: Logarithm of what may be left out of a row, relative to its sum.
            sums: Logarithms of row sums that are about right, (n,), where there are some.
        """
        self._rows, self._columns = trees
        self._left, self._right = factors
        self._alpha, self._lost, self.sums = 1 / reg, lost, sums
        self._judged: Judged | None = None

    def parts(self, t: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows, columns and exponents t_j - C_ij / reg of all that counts at t (m,)."""
        self.row_sums(t)
        assert self._judged is not None
        return self._parts(self._judged.live, t)

    def row_sums(
        self, t: Tensor, carried: Carried | None = None, again: Callable[[], object] = lambda: None
    ) -> Tensor:
        """Return the logarithms of row sums at t (m,), of all that counts, (n,).

        Args:
            t: Column potential.
            carried: Told of what was summed, part by part.
            again: Called before each try.
        """
        if not math.isfinite(top := float(t.amax())):
            # nothing has weight, or a step led to what is no number
            again()
            return t.new_full((len(self._rows.order),), top)
        tries = 0
        while True:
            tries += 1
            judged = self._serving(t, every=tries == _TRIES)
            again()
            assert self.sums is not None
            sums = torch.empty_like(judged.sums)
            for rows, columns, block in self._parts(judged.live, t):
                base, e, total = _exponentiated(self.sums[rows], block)
                sums[rows] = total.log_().add_(base)
                if carried is not None:
                    carried(rows, columns, base, e, sums[rows])
            if self._settled(judged, t, sums) or tries == _TRIES:
                return sums

    def _serving(self, t: Tensor, every: bool) -> Judged:
        """Return what is judged to count around t; every pair if so asked."""
        known = self._judged
        if known is not None and _rise(t, known.v) <= _MARGIN / 2:
            return known
        if self.sums is None:
            self.sums = self._first(t)
        if every:
            live = torch.ones(len(self._rows), len(self._columns), dtype=torch.bool)
            cut = t.new_full((len(live),), -math.inf)
        else:
            share = self._most(-self.sums, t)
            live = share > self._lost - _MARGIN - math.log(len(self._columns))
            # some part of every row counts, however far off the sums are
            live.scatter_(1, share.argmax(1, keepdim=True), True)
            cut = share.masked_fill_(live, -math.inf).logsumexp(-1)
        self._judged = Judged(live, cut, t, self.sums)
        return self._judged

    def _settled(self, judged: Judged, t: Tensor, sums: Tensor) -> bool:
        """Say whether what was left out is as little as it may be, now that row sums are known."""
        fall = (judged.sums - sums).nan_to_num_(nan=0.0)
        fall = torch.zeros_like(judged.cut).scatter_reduce_(
            0, self._rows.block, fall, "amax", include_self=False
        )
        left = float((judged.cut + fall).amax()) + _rise(t, judged.v)
        self.sums = sums
        if left <= self._lost:
            return True
        self._judged = None
        return False

    def _most(self, u: Tensor, t: Tensor) -> Tensor:
        """Return the logarithm of what blocks carry at most for any row, (rows, columns)."""
        rows, columns = self._rows, self._columns
        share = most(rows, above(rows, u), columns, above(columns, t), 1 / self._alpha)
        return share.add_(columns.sizes.to(t.dtype).log())

    def _first(self, t: Tensor) -> Tensor:
        """Return lower bounds on the row sums: those over the blocks that may count most."""
        sums = t.new_zeros(len(self._rows.order))
        share = self._most(sums, t)
        top = share.topk(min(_FIRST, share.shape[1])).indices
        live = torch.zeros_like(share, dtype=torch.bool).scatter_(1, top, True)
        for rows, _, block in self._parts(live, t):
            sums[rows] = block.logsumexp(-1)
        return sums

    def _parts(self, live: Tensor, t: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows, columns and the exponents t_j - C_ij / reg of pairs of blocks."""
        starts, sizes = self._columns.starts, self._columns.sizes
        ends = self._rows.starts.tolist()
        for k, (start, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            near = live[k].nonzero()[:, 0]
            count = sizes[near]
            last = count.cumsum(0)
            first = (starts[near] - last + count).repeat_interleave(count)
            columns = first + torch.arange(len(first))
            right, v = self._right[columns].T, t[columns]
            step = max(1, _TILE // len(columns))
            for row in range(start, stop, step):
                rows = slice(row, min(stop, row + step))
                yield rows, columns, torch.addmm(v, self._left[rows], right, alpha=-self._alpha)


def _exponentiated(known: Tensor, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a base per row, exponentials less that, and their sums.

    The sums that are known are the base while they keep these in range, else the maximum.
    """
    if bool((known > -math.inf).all()):
        e = exp_(block - known[:, None])
        total = e.sum(-1)
        if bool(((total > TINY) & (total < math.inf)).all()):
            return known, e, total
    base = block.amax(-1).nan_to_num_(neginf=0.0)
    e = exp_(block.sub_(base[:, None]))
    return base, e, e.sum(-1)


def _rise(v: Tensor, w: Tensor) -> float:
    """Return by how much a potential has risen at most; where there is no weight it has not."""
    return float((v - w).nan_to_num_(nan=0.0, neginf=0.0).amax())
