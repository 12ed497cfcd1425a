"""A cost that is read block by block at every pass and never held whole."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks
from sinkhorn_ot.problem.rows import Block, Index, Rows, RowsLike, as_rows, number
from sinkhorn_ot.problem.show import shown

from .cost import MEMORY, Bounds, flatten


@shown
@dataclass(frozen=True, eq=False)
class Facts:
    """What a pass over the rows tells.

    Attributes:
        batch_shape: Leading dimensions of every block.
        shape: Number of rows and of columns.
        dtype: Storage type of the blocks.
        device: Where the blocks live.
        bounds: Where the costs lie.
    """

    batch_shape: torch.Size
    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    bounds: Bounds


@shown
class Streamed:
    """A cost matrix that need not fit in memory: every pass reads its rows again, block by block.

    Making it takes the first pass, which checks every number.

    Args:
        source: What can be read again and again: an array (..., n, m) or a memory map; a loader, a
            list, or a function that starts an iteration, of blocks (..., rows, m) in order, or of
            pairs (numbers of the rows, block) in any order, every row once. Each pass must give the
            same numbers.
        name: What messages call it.
        sign: -1 if the source holds scores, which are minus the costs.
        facts: What the first pass told, if it has been taken.

    Raises:
        ValueError: If the source cannot be read twice, or a number breaks a rule.
    """

    def __init__(
        self,
        source: RowsLike | Rows,
        *,
        name: str = "source",
        sign: Literal[1, -1] = 1,
        facts: Facts | None = None,
    ) -> None:
        if not isinstance(sign, int) or abs(sign) != 1:
            raise ValueError(f"sign must be 1 or -1, got {sign!r}")
        self._rows = as_rows(name, source)
        self._sign: Literal[1, -1] = sign
        self.facts = _open(name, survey(self._rows, sign)) if facts is None else facts

    @property
    def stored(self) -> bool:
        """Whether the rows are in memory anyway."""
        return self._rows.stored

    @property
    def held(self) -> tuple[Tensor, int] | None:
        """The tensor of all rows and the sign that makes costs of it, if there is one tensor."""
        return None if self._rows.held is None else (self._rows.held(), self._sign)

    @property
    def memory(self) -> int:
        """Bytes of kernel that may be held: little, for the rows did not fit."""
        return MEMORY // 8

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of the blocks."""
        return self.facts.batch_shape

    @property
    def shape(self) -> tuple[int, int]:
        """Number of source and target points."""
        return self.facts.shape

    @property
    def dtype(self) -> torch.dtype:
        """Storage type of the blocks."""
        return self.facts.dtype

    @property
    def device(self) -> torch.device:
        """Where the blocks live."""
        return self.facts.device

    def flat(self, batch: torch.Size) -> "Streamed":
        """Return the costs of a batch with one batch dimension."""
        one = self.batch_shape.numel() == 1
        size = torch.Size([1 if one else batch.numel()])
        rows = self._rows.map(lambda C: flatten(C, batch, one), self.stored)
        return self._with(rows, replace(self.facts, batch_shape=size))

    def select(self, index: Tensor) -> "Streamed":
        """Return the problems at `index` of a flat batch."""
        rows = self._rows.map(lambda C: C[index], self.stored)
        return self._with(rows, replace(self.facts, batch_shape=index.shape))

    def _with(self, rows: Rows, facts: Facts) -> "Streamed":
        return Streamed(rows, sign=self._sign, facts=facts)

    def to(self, device: torch.device) -> "Streamed":
        """Return the same costs, whose blocks are brought to a device as they are read."""
        rows = self._rows.map(lambda C: C.to(device))
        return self._with(rows, replace(self.facts, device=device))

    def watched(self, told: Callable[[int], object]) -> "Streamed":
        """Return the same costs, and tell how many rows have been read after every block."""
        return self._with(self._rows.watched(told), self.facts)

    def transposed(self) -> "Streamed":
        """Refuse, because columns cannot be read."""
        raise ValueError(f"{self._rows.name} is read by rows: it cannot be transposed")

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows start:stop, by a pass over all of them."""
        out = torch.empty((*self.batch_shape, *self.shape), dtype=self.dtype, device=self.device)
        for index, C in self.tiles(max(1, self.shape[0])):
            out[..., index, :] = C
        return out[..., start:stop, :]

    def tiles(self, size: int) -> Iterator[Block]:
        """Yield blocks of at most `size` rows; raise if this pass has other rows than the first."""
        n, m = self.shape
        seen, width = 0, m
        for index, C in self._rows.tiles(size):
            seen, width = seen + C.shape[-2], C.shape[-1]
            if width != m or seen > n or (isinstance(index, Tensor) and _outside(index, n)):
                break
            yield index, C if self._sign > 0 else -C
        else:
            if seen == n:
                return
        raise ValueError(
            f"{self._rows.name} must give the same rows at every pass: the first had {n} of width "
            f"{m}, a later one has {'more' if seen > n else seen} of width {width}"
        )

    def validate(self) -> Bounds:
        """Return bounds on the entries; the first pass raised on what is no number."""
        return self.facts.bounds


def filled(name: str, facts: Facts | None) -> Facts:
    """Require some rows."""
    if facts is None:
        raise ValueError(f"{name} must hold rows, got no block")
    if facts.shape[0] == 0:
        shape = (*facts.batch_shape, *facts.shape)
        raise ValueError(f"{name} must not be empty, got shape {shape}")
    return facts


def _open(name: str, facts: Facts | None) -> Facts:
    """Require a block, and of rows, which others may hold, some pair that is allowed."""
    if facts is None:
        return filled(name, facts)
    if facts.shape[0] and facts.bounds.low == math.inf:
        raise ValueError(f"{name} must allow some pair, got inf everywhere")
    return facts


def survey(rows: Rows, sign: Literal[1, -1] = 1) -> Facts | None:
    """Read all rows once, require numbers, and return what they tell; None if there is no block.

    Args:
        rows: Costs, none of them -inf, or scores, none of them inf.
        sign: 1 for costs, -1 for scores.
    """
    first: Tensor | None = None
    count, numbers = 0, []
    low, high, forbids = math.inf, -math.inf, False
    for index, block in rows:
        first = block if first is None else first
        _like(rows.name, checks.present(rows.name, block), first)
        if 0 in (*block.shape[:-2], block.shape[-1]):
            raise ValueError(f"{rows.name} must not be empty, got shape {tuple(block.shape)}")
        if block.shape[-2] == 0:
            continue
        count += block.shape[-2]
        if isinstance(index, Tensor):
            numbers.append(index)
        seen = _bounds(rows.name, index, block, sign)
        low, high = min(low, seen.low), max(high, seen.high)
        forbids |= seen.forbids
    if first is None:
        return None
    if numbers:
        _each_once(rows.name, torch.cat(numbers), count)
    bounds = Bounds(low, max(low, high), forbids)
    return Facts(first.shape[:-2], (count, first.shape[-1]), first.dtype, first.device, bounds)


def _like(name: str, block: Tensor, first: Tensor) -> None:
    shape = (*first.shape[:-2], first.shape[-1])
    if (*block.shape[:-2], block.shape[-1]) != shape or block.dtype != first.dtype:
        raise ValueError(
            f"{name} must have blocks of one kind, got {first.dtype} {tuple(first.shape)} "
            f"and {block.dtype} {tuple(block.shape)}"
        )


def _bounds(name: str, index: Index, block: Tensor, sign: int) -> Bounds:
    """Return where the costs of a block lie; raise on what is no number."""
    least, most = (float(t) for t in torch.aminmax(block))
    low, high = (least, most) if sign > 0 else (-most, -least)
    if math.isnan(low) or low == -math.inf:
        bad = block.isnan() | (block == -sign * math.inf)
        found = checks.first_index(bad)
        at = (*found[:-2], number(index, found[-2]), found[-1])
        side = "above -inf" if sign > 0 else "below inf"
        value = float(block[found])
        raise ValueError(f"{name} must be a number {side}, got {value:.4g} at index {at}")
    if high < math.inf:
        return Bounds(low, high)
    finite = block[block.abs() < math.inf]
    # a block that forbids all its pairs says nothing of the others
    high = float(finite.amax() if sign > 0 else -finite.amin()) if finite.numel() else -math.inf
    return Bounds(low, high, True)


def _outside(numbers: Tensor, n: int) -> bool:
    """Say whether some row has a number that none can have."""
    return bool(((numbers < 0) | (numbers >= n)).any())


def _each_once(name: str, numbers: Tensor, count: int) -> None:
    if len(numbers) != count:
        raise ValueError(f"{name} must number all of its rows or none")
    if _outside(numbers, count):
        value = int(numbers[(numbers < 0) | (numbers >= count)][0])
        raise ValueError(f"{name} must number its {count} rows from 0 to {count - 1}, got {value}")
    times = torch.bincount(numbers, minlength=count)
    if bool((times != 1).any()):
        row = int(torch.argmax((times == 0).to(torch.uint8)))
        raise ValueError(f"{name} must number every row once: row {row} is missing")
