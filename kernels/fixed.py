"""A fixed number of plain sweeps over a stored cost: two launches each, and nothing besides.

A column that no pair allows is left at -inf.
"""

import torch
import triton
from torch import Tensor

from .columns import answer
from .configs import OPTIONS, layout, multiprocessors, row_programs, row_tile
from .dense_sweep import _sweep_rows
from .launch import launch


def serves(C: Tensor, dtype: torch.dtype) -> bool:
    """Say whether rows stay on chip, for potentials of this dtype."""
    return row_tile(C.shape[2], layout(C).axis, dtype.itemsize) is not None


def sweeps(
    C: Tensor,
    a: Tensor,
    b: Tensor,
    inv_reg: Tensor,
    n_iter: int,
    v: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the potentials (B, n) and (B, m) that plain sweeps lead to, rows first.

    Args:
        C: Cost (B, n, m) or (1, n, m) for all problems, any strides and floating dtype.
        a: Row weights (B, n).
        b: Column weights (B, m), float32 or float64, in which everything is computed.
        inv_reg: 1 / reg of each problem (B,).
        n_iter: Sweeps, at least one.
        v: Column potential to start from (B, m); None for log b.
        lengths: How many first rows and columns each problem has (B, 2), int32, with weights of
            zero beyond; None if all have all.
    """
    B, n, m = b.shape[0], *C.shape[1:]
    axis, div, strides, sizes = layout(C)
    tile = row_tile(m, axis, b.itemsize)
    assert tile is not None
    sms = multiprocessors(C.device)
    P = row_programs(n, C.itemsize / b.itemsize, triton.cdiv(n, tile.BM), tile.num_warps, B, sms)
    a, b = a.contiguous(), b.contiguous()
    v = b.log() if v is None else v.clone(memory_format=torch.contiguous_format)
    u, bases, moves = (torch.empty(B, n, device=C.device, dtype=b.dtype) for _ in range(3))
    part = torch.empty(B, P, m, device=C.device, dtype=b.dtype)
    for k in range(n_iter):
        # a pointer that a constant switch leaves unread still has to be one
        launch(
            _sweep_rows, B * P, C, u, v, a, inv_reg, inv_reg, inv_reg,
            inv_reg if lengths is None else lengths, bases, moves, part, *sizes, P, strides,
            AXIS=axis, DIV=div, FIRST=k == 0, RELAXED=False, DONE=False,
            RAGGED=lengths is not None, **tile._asdict(), **OPTIONS,
        )  # fmt: skip
        answer(C, u, bases, moves, part, v, b, inv_reg, v, lengths)
    return u, v
