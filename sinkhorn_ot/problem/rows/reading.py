"""Rows that need not fit in memory: arrays, files and loaders, read block by block at each pass."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import checks
from sinkhorn_ot.problem.show import shown

from .given import RowsLike
from .meanwhile import ahead


# the numbers of some rows, and the rows (..., rows, k)
Index = slice | Tensor
Block = tuple[Index, Tensor]

# numbers in one block of an array: a read worth its call, and little memory
_BLOCK = 1 << 19
# numbers handled at once where no cache has to hold them: a launch is dear, and memory large
_ELSEWHERE = 1 << 27


def entries(index: Tensor) -> Index:
    """Return the numbers of some entries; that of one as a slice on a CPU, which copies nothing."""
    if index.numel() != 1 or index.device.type != "cpu":
        return index
    k = int(index)
    return slice(k, k + 1)


def at_once(device: torch.device, cached: int) -> int:
    """Return how many numbers to handle at once: what a CPU's cache holds, elsewhere many."""
    return cached if device.type == "cpu" else max(cached, _ELSEWHERE)


@shown
@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a matrix, or of a batch of them, that can be read again and again.

    Args:
        name: What messages call them.
        read: Starts a pass over all rows: blocks (..., rows, k), each with the numbers of its rows.
        stored: Whether they are in memory anyway.
        held: Returns the tensor (..., n, k) of which they are the rows, if there is one.
    """

    name: str
    read: Callable[[], Iterator[Block]]
    stored: bool = False
    held: Callable[[], Tensor] | None = None

    def __iter__(self) -> Iterator[Block]:
        return self.read()

    def map(self, change: Callable[[Tensor], Tensor], stored: bool = False) -> "Rows":
        """Return the rows with every block changed when it is read.

        Args:
            change: What to do with a block.
            stored: Whether what comes of it is in memory still, as a view is.
        """
        whole = self.held
        held = None if whole is None or not stored else lambda: change(whole())

        def read() -> Iterator[Block]:
            for index, block in self:
                yield index, change(block)

        return Rows(self.name, read, stored, held)

    def watched(self, told: Callable[[int], object]) -> "Rows":
        """Return the rows, and tell how many have been read after every block."""

        def read() -> Iterator[Block]:
            for index, block in self:
                told(block.shape[-2])
                yield index, block

        return Rows(self.name, read, self.stored, self.held)

    def sound(self, forbids: bool = False) -> "Rows":
        """Return the rows, refused as they are read on a CPU where they are not finite.

        Whoever changes rows asks for it first: so a message names what the caller gave.

        Args:
            forbids: Whether -inf is taken.
        """

        def read() -> Iterator[Block]:
            for index, block in self:
                if block.device.type == "cpu" and block.numel():
                    self._look(index, block, forbids)
                yield index, block

        return Rows(self.name, read, self.stored, self.held)

    def _look(self, index: Index, block: Tensor, forbids: bool) -> None:
        low, high = (float(t) for t in torch.aminmax(block))
        if (forbids or -math.inf < low) and high < math.inf:
            return
        bad = ~(block < math.inf) if forbids else ~block.isfinite()
        *head, row, k = checks.first_index(bad)
        value, at = float(block[(*head, row, k)]), (*head, number(index, row), k)
        rule = "be a number below inf" if forbids else "be finite"
        raise ValueError(f"{self.name} must {rule}, got {value:.4g} at index {at}")

    @staticmethod
    def mean(parts: "list[Rows]") -> "Rows":
        """Return the mean of rows that come in equal blocks."""

        def read() -> Iterator[Block]:
            for blocks in zip_longest(*parts):
                if None in blocks or not all(_same(blocks[0], other) for other in blocks[1:]):
                    names = ", ".join(part.name for part in parts)
                    raise ValueError(f"{names} must come in equal blocks of the same rows")
                yield blocks[0][0], torch.stack([block for _, block in blocks]).mean(0)

        return Rows(parts[0].name, read)

    def tiles(self, size: int) -> Iterator[Block]:
        """Yield blocks of at most `size` rows."""
        for index, block in self:
            for start in range(0, block.shape[-2], size):
                part = block[..., start : start + size, :]
                yield _within(index, start, part.shape[-2]), part


def _within(index: Index, start: int, size: int) -> Index:
    if isinstance(index, slice):
        return slice(index.start + start, index.start + start + size)
    return index[start : start + size]


def _same(one: Block, other: Block) -> bool:
    (rows, block), (more, beside) = one, other
    if isinstance(rows, Tensor) and isinstance(more, Tensor):
        return block.shape == beside.shape and torch.equal(rows, more)
    return block.shape == beside.shape and not isinstance(rows, Tensor) and rows == more


def number(index: Index, row: int) -> int:
    """Return the number of a block's row."""
    return int(index.start + row if isinstance(index, slice) else index[row])


def as_rows(name: str, source: RowsLike | Rows, *, width: int = 1) -> Rows:
    """Return the rows of what a caller holds.

    Args:
        name: What messages call it.
        source: A tensor or an array (..., n, k), which may be a memory map; or what can be iterated
            again and again, or a function that starts an iteration, of blocks (..., rows, k) in
            order or of pairs (numbers of the rows, block) in any order.
        width: Numbers that each row will be turned into.

    Raises:
        ValueError: If it cannot be read, or be read only once.
    """
    if isinstance(source, Rows):
        return source
    if isinstance(source, (Tensor, np.ndarray)):
        return _of_array(name, source, width)
    if hasattr(source, "toarray"):
        checks.array(name, source)
    if isinstance(source, Iterator):
        raise ValueError(
            f"{name} must be read several times, and a {type(source).__name__} can be only once: "
            "pass the function that makes it, a loader, a list of blocks, or an array"
        )
    if callable(source):
        begin: Callable[[], Any] = source
        return Rows(name, lambda: ahead(_numbered(name, _iterable(name, begin())), _on_cpu))
    if isinstance(source, (list, tuple)):
        return Rows(name, lambda: _numbered(name, source))
    if isinstance(source, Iterable):
        return Rows(name, lambda: ahead(_numbered(name, source), _on_cpu))
    raise ValueError(
        f"{name} must be a tensor, an array or blocks of rows, got {type(source).__name__}"
    )


def _iterable(name: str, blocks: Any) -> Iterable[Any]:
    if not isinstance(blocks, Iterable):
        raise ValueError(
            f"{name} must start an iteration of blocks when it is called, got a "
            f"{type(blocks).__name__}"
        )
    return blocks


def _of_array(name: str, source: Any, width: int) -> Rows:
    if isinstance(source, Tensor):
        source = checks.tensor(name, source)
    shape = tuple(source.shape)
    if len(shape) < 2:
        raise ValueError(f"{name} must have shape (..., n, k), got {shape}")
    *batch, n, k = shape
    whole = (lambda: source) if isinstance(source, Tensor) else None
    block = _BLOCK if whole is None else at_once(source.device, _BLOCK)
    step = max(1, block // max(1, width, k * int(np.prod(batch))))

    def read() -> Iterator[Block]:
        # one block even of no rows: it tells the width
        for start in range(0, max(n, 1), step):
            rows = slice(start, min(n, start + step))
            yield rows, checks.tensor(name, source[..., rows, :])

    # a memory map is an array too, and what it maps is not in memory
    if isinstance(source, np.memmap):
        return Rows(name, lambda: ahead(read(), _on_cpu))
    return Rows(name, read, stored=True, held=whole)


def _on_cpu(item: Block) -> bool:
    """Say whether a block is on the CPU: on a device, order is kept within a thread."""
    return item[1].device.type == "cpu"


def _numbered(name: str, blocks: Iterable[Any]) -> Iterator[Block]:
    """Yield (numbers, block), counting rows where the caller does not number them."""
    start = 0
    for item in blocks:
        if isinstance(item, (tuple, list)):
            yield _pair(name, item)
            continue
        block = _block(name, item)
        yield slice(start, start + block.shape[-2]), block
        start += block.shape[-2]


def _pair(name: str, item: Any) -> Block:
    if len(item) != 2:
        rule = "yield blocks or pairs (numbers, block)"
        raise ValueError(f"{name} must {rule}, got {len(item)} parts")
    block = _block(name, item[1])
    index = checks.numbers(name, item[0])
    if index.is_floating_point() or index.shape != block.shape[-2:-1]:
        raise ValueError(
            f"{name} must number the {block.shape[-2]} rows of a block by whole numbers, "
            f"got {str(index.dtype).removeprefix('torch.')} of shape {tuple(index.shape)}"
        )
    return index.to(block.device, torch.int64), block


def _block(name: str, block: Any) -> Tensor:
    t = checks.tensor(name, block)
    if t.ndim < 2:
        raise ValueError(f"{name} must yield blocks of shape (..., rows, k), got {tuple(t.shape)}")
    return t
