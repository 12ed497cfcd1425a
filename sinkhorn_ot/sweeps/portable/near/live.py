"""Which pairs of blocks count, and passes over those alone.

Whether a pair of blocks may count is judged by a bound on what it carries at most, relative to its
rows. What was left out is bounded again after every pass, by the row sums that were found, and
judged anew where that is too much.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import shown
from sinkhorn_ot.sweeps.portable.cpu import exp_

from .bounds import above, most
from .tree import Blocks


# pairs whose exponents are formed together, and rows at least: each comes with work for columns
_TILE, _ROWS = 1 << 17, 16
# how much potentials may rise before blocks are judged again
_MARGIN = 6.0
# blocks of columns that a first look at the row sums takes
_FIRST = 3
# judgements of one potential after which every pair counts
_TRIES = 4
# places of columns that are held
_HELD = 1 << 23
# products of coordinates that single precision tells to a thousandth
_RESOLVED = 1 << 14
# exponents of rows' largest entries, and of their least, that single precision can sum
_WIDE, _FAINT = 40.0, -87.0


@shown
class Judged(NamedTuple):
    """Which pairs of blocks may count around a potential.

    Attributes:
        near: Blocks of columns that count for each block of rows, and, if held, their columns.
        cut: Logarithm of what the others come to at most, beside a row's sum, (rows,).
        v: The column potential that was judged, (m,).
        sums: Logarithms of the row sums that were taken for known, (n,).
    """

    near: list[tuple[Tensor, Tensor | None]]
    cut: Tensor
    v: Tensor
    sums: Tensor


@shown
class Part(NamedTuple):
    """Some rows, and all columns that may count for them.

    Attributes:
        rows: Which rows, r of them.
        near: Which blocks of columns.
        columns: Which columns, (c,).
        exponents: Potentials less costs over reg, (r, c).
    """

    rows: slice
    near: Tensor
    columns: Tensor
    exponents: Tensor


# told of rows, columns, a base per row, exponentials less that, and logarithms of row sums
Carried = Callable[[slice, Tensor, Tensor, Tensor, Tensor], None]


class Live:
    """Passes over the pairs of blocks that count at a potential; all numbers in order."""

    def __init__(
        self, trees: tuple[Blocks, Blocks], reg: float, lost: float, sums: Tensor | None = None
    ) -> None:
        """Begin.

        Args:
            trees: Rows and columns.
            reg: What costs are divided by.
            lost: Logarithm of what may be left out of a row, relative to its sum.
            sums: Logarithms of row sums that are about right, (n,), where there are some.
        """
        self._rows, self._columns = trees
        self._reg, self._lost, self.sums = reg, lost, sums
        self._judged: Judged | None = None
        # the logarithm of the most that a pass may have left out of a row
        self.left: float | None = None
        # the potential that was last summed at
        self._at: Tensor | None = None

    def told(self) -> dict[str, Any]:
        """Return what was judged, and by which sums; columns can be found again."""
        if (judged := self._judged) is None:
            return {"sums": self.sums, "judged": None}
        held, near = judged.near[0][1] is not None, [blocks for blocks, _ in judged.near]
        return {"sums": self.sums, "judged": [near, held, *judged[1:]]}

    def take(self, memory: dict[str, Any]) -> None:
        """Go on from that."""
        self.sums, judged = memory["sums"], memory["judged"]
        if judged is not None:
            near, held, *rest = judged
            members = self._columns.members
            found = [(blocks, members(blocks) if held else None) for blocks in near]
            self._judged = Judged(found, *rest)

    def parts(self, s: Tensor, t: Tensor, dtype: torch.dtype = torch.float64) -> Iterator[Part]:
        """Yield s_i + t_j - C_ij / reg, of all that counts at t (m,); s (n,)."""
        if self._at is None or not torch.equal(self._at, t):
            self.row_sums(t, dtype)
        judged = self._judged or self._every(t, s)
        return self._parts(judged, s, t, dtype)

    def row_sums(
        self,
        t: Tensor,
        dtype: torch.dtype = torch.float64,
        carried: Carried | None = None,
        again: Callable[[], object] = lambda: None,
    ) -> Tensor:
        """Return the logarithms of row sums at t (m,), of all that counts, (n,).

        Args:
            t: Column potential.
            dtype: In which exponentials are taken.
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
            sums, known = torch.empty_like(self.sums), self.sums
            for rows, _, columns, block in self._parts(judged, -known, t, dtype):
                base, e, total = _exponentiated(known[rows], block)
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
            self._judged = self._every(t, self.sums)
        else:
            share = self._most(-self.sums, t)
            live = share > self._lost - _MARGIN - math.log(len(self._columns))
            # some part of every row counts, however far off the sums are
            live.scatter_(1, share.argmax(1, keepdim=True), True)
            cut = share.masked_fill_(live, -math.inf).logsumexp(-1)
            self._judged = self._listed(live, cut, t, self.sums)
        return self._judged

    def _every(self, t: Tensor, sums: Tensor) -> Judged:
        """Return that all count."""
        live = torch.ones(len(self._rows), len(self._columns), dtype=torch.bool)
        return self._listed(live, t.new_full((len(live),), -math.inf), t, sums)

    def _listed(self, live: Tensor, cut: Tensor, t: Tensor, sums: Tensor) -> Judged:
        """Return what counts, with the places of its columns if these are not too many."""
        columns = self._columns
        held = float((live * columns.sizes).sum()) <= _HELD
        lists = torch.split(live.nonzero()[:, 1], live.sum(1).tolist())
        near = [(blocks, columns.members(blocks) if held else None) for blocks in lists]
        return Judged(near, cut, t, sums)

    def _settled(self, judged: Judged, t: Tensor, sums: Tensor) -> bool:
        """Say whether what was left out is as little as it may be, now that row sums are known."""
        fall = (judged.sums - sums).nan_to_num_(nan=0.0)
        fall = torch.zeros_like(judged.cut).scatter_reduce_(
            0, self._rows.block, fall, "amax", include_self=False
        )
        left = float((judged.cut + fall).amax()) + _rise(t, judged.v)
        self.sums, self._at = sums, t
        if left <= self._lost:
            self.left = left if self.left is None else max(left, self.left)
            return True
        self._judged = self._at = None
        return False

    def _most(self, u: Tensor, t: Tensor) -> Tensor:
        """Return the logarithm of what blocks carry at most for any row, (rows, columns)."""
        rows, columns = self._rows, self._columns
        share = most(rows, above(rows, u), columns, above(columns, t), self._reg)
        return share.add_(columns.sizes.to(t.dtype).log())

    def _first(self, t: Tensor) -> Tensor:
        """Return lower bounds on the row sums: those over the blocks that may count most."""
        sums = t.new_zeros(len(self._rows.order))
        share = self._most(sums, t)
        top = share.topk(min(_FIRST, share.shape[1])).indices
        live = torch.zeros_like(share, dtype=torch.bool).scatter_(1, top, True)
        judged = self._listed(live, sums[:1], t, sums)
        for rows, _, _, block in self._parts(judged, sums.clone(), t, torch.float64):
            sums[rows] = block.logsumexp(-1)
        return sums

    def _parts(self, judged: Judged, s: Tensor, t: Tensor, dtype: torch.dtype) -> Iterator[Part]:
        """Yield s_i + t_j - C_ij / reg of pairs of blocks."""
        # in widths of the kernel, whatever the unit of points
        x, y = (at.points / math.sqrt(self._reg) for at in (self._rows, self._columns))
        right = torch.cat([y, t[:, None]], 1)
        ends = self._rows.starts.tolist()
        for k, (start, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            near, columns = judged.near[k]
            if columns is None:
                columns = self._columns.members(near)
            single = dtype == torch.float32
            rows_of, columns_of, base = _factors(
                x[start:stop], right[columns], s[start:stop], single
            )
            step = max(_ROWS, _TILE // len(columns))
            for row in range(start, stop, step):
                rows = slice(row, min(stop, row + step))
                at = slice(row - start, rows.stop - start)
                block = torch.addmm(base[at, None], rows_of[at], columns_of.T)
                yield Part(rows, near, columns, block.to(dtype))


def _factors(x: Tensor, y: Tensor, s: Tensor, single: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return factors, and what is added to their product, for s_i + t_j - |x_i - y_j|^2.

    They are around the middle of a block of rows, where squares are small, and in single precision
    around that of the columns too, unless numbers are large even there, as of a block that spans
    the gap between two clusters.

    Args:
        x: (r, d).
        y: The columns and t beside them, (c, d + 1), which is written over.
        s: (r,).
        single: Whether single precision is asked for.
    """
    middle, ones = x.mean(0), x.new_ones(x.shape[1])
    x, points, t = x - middle, y[:, :-1], y[:, -1]
    points -= middle
    t -= points.square() @ ones
    s = s - x.square() @ ones
    left = torch.cat([2 * x, torch.ones_like(x[:, :1])], 1)
    other = points.mean(0)
    # a product's largest terms, around both middles
    reach = x.abs().amax(0) @ torch.maximum(points.amax(0) - other, other - points.amin(0))
    if not single or 2 * float(reach) > _RESOLVED:
        return left, y, s
    # what has no weight is -inf, which nothing is measured from
    peak = t.amax()
    points -= other
    t -= peak
    return left.float(), y.float(), (s + 2 * (x @ other) + peak).float()


def _exponentiated(known: Tensor, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a base per row, exponentials less that, and their sums.

    Exponents are given less the sums that are known; these are the base while they keep
    exponentials in range, else the maximum.
    """
    peak = block.amax(-1)
    low, high = (float(end) for end in torch.aminmax(peak))
    if not -_WIDE < low <= high < _WIDE:
        peak = peak.nan_to_num_(neginf=0.0)
        block.sub_(peak[:, None])
        known = known + peak
    e = _exp(block)
    return known, e, e.sum(-1, dtype=torch.float64)


def _exp(s: Tensor) -> Tensor:
    """Exponentiate in place; in single precision what is faint stays, if next to nothing."""
    if s.dtype == torch.float64:
        return exp_(s)
    s.clamp_(min=_FAINT)
    # twice as quick as torch, and as good as is asked here
    np.exp(s.numpy(), out=s.numpy())
    return s


def _rise(v: Tensor, w: Tensor) -> float:
    """Return by how much a potential has risen at most; where there is no weight it has not."""
    return float((v - w).nan_to_num_(nan=0.0, neginf=0.0).amax())
