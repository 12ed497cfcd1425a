"""Which samples count: what rows hold that do not is never seen, as they are read."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import levelled
from sinkhorn_ot.problem import Block, Index, Rows


def counting(rows: Rows, mask: Tensor) -> Rows:
    """Return the rows, those that do not count levelled with the others of their block.

    Args:
        rows: Of one matrix or several.
        mask: True where a row counts, (n,) or (..., n). Where it does not fit, rows are left as
            they are: whoever has read them all knows their shape, and says so.
    """

    def read() -> Iterator[Block]:
        for index, block in rows:
            fits = block.numel() and mask.device == block.device and _fits(mask, index, block)
            yield index, levelled(block, here(mask, index, block)) if fits else block

    return Rows(rows.name, read, rows.stored)


def here(mask: Tensor, index: Index, block: Tensor) -> Tensor:
    """Return which rows of a block count, (..., rows)."""
    return mask[..., index].expand(block.shape[:-1])


def weights(mask: Tensor, count: Tensor, N: int) -> Tensor:
    """Return the share of the mass of each row, (..., n), float64.

    Args:
        mask: Which of this rank's rows count, (..., n).
        count: How many count on all ranks, (...).
        N: Rows on all ranks: where none counts, all do, and any plan will do.
    """
    share = mask.double() / count.clamp(min=1)[..., None]
    return torch.where((count > 0)[..., None], share, 1.0 / N)


def _fits(mask: Tensor, index: Index, block: Tensor) -> bool:
    if mask.ndim == 0:
        return False
    last = index.stop - 1 if isinstance(index, slice) else int(index.max())
    return last < mask.shape[-1] and mask.shape[:-1] in (torch.Size(), block.shape[:-2])
