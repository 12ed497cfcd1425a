"""Many small problems, each solved whole on chip, all iterations in one launch.

Per entry: one read of C in all; then per iteration one exp2, two adds into the exponent, a multiply
and two adds for the sums. With tens of iterations the exponentials are the limit, not the memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import OPTIONS, Bound, layout, small_tile
from .tiles import HUGE, LN2, LOG2E, TINY, finite


@triton.jit
def _rows(x, u, v, a):
    """Return the row potential that answers the row sums, and the plan at it."""
    e = tl.exp2(x + (u[:, :, None] + v[:, None, :]))
    total = tl.sum(e, 2)
    # nan is lost too
    lost = (a > 0) & ~((total > TINY) & (total < HUGE))
    if tl.max(tl.max(lost.to(tl.int32), 1), 0) > 0:
        u = tl.where(lost, -finite(tl.max(x + v[:, None, :], 2)), u)
        e = tl.exp2(x + (u[:, :, None] + v[:, None, :]))
        total = tl.sum(e, 2)
    move = a / total
    u = tl.where(a > 0, u + tl.log2(move), -float("inf"))
    return u, e * tl.where((a > 0) & (total > 0), move, 0.0)[:, :, None]


@triton.jit
def _columns(x, u, v, b, s):
    """Return the column potential that answers the column sums `s`."""
    lost = (b > 0) & ~(s > TINY)
    moved = v + tl.log2(b / s)
    if tl.max(tl.max(lost.to(tl.int32), 1), 0) > 0:
        z = x + u[:, :, None]
        top = finite(tl.max(z, 1))
        again = tl.log2(b) - top - tl.log2(tl.sum(tl.exp2(z - top[:, None, :]), 1))
        moved = tl.where(lost, again, moved)
    return tl.where(b > 0, moved, -float("inf"))


@triton.jit(do_not_specialize=["B", "n", "m", "n_iter", "tol"])
def _solve_small(
    C, a, b, inv_reg, u, v, error, count, B, n, m, n_iter, tol, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, STOP: tl.constexpr,
    PB: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Solve PB problems: rows then columns, until `n_iter` or the L1 error of the columns is `tol`."""
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    k = tl.program_id(0).to(tl.int64) * PB + tl.arange(0, PB)
    i, j = tl.arange(0, BM), tl.arange(0, BN)
    alive = k < B
    rows, columns = alive[:, None] & (i < n)[None, :], alive[:, None] & (j < m)[None, :]
    at_row, at_column = k[:, None] * n + i[None, :], k[:, None] * m + j[None, :]
    down = i.to(tl.int64) * strides[1] * (DIV if AXIS == 1 else 1)
    right = j.to(tl.int64) * strides[2] * (DIV if AXIS == 0 else 1)
    at = (k * strides[0] * DIV)[:, None, None] + down[None, :, None] + right[None, None, :]
    x = tl.load(C + at, mask=rows[:, :, None] & columns[:, None, :], other=0.0).to(tl.float32)
    x *= (tl.load(inv_reg + k, mask=alive, other=1.0) * -LOG2E)[:, None, None]
    a_i = tl.load(a + at_row, mask=rows, other=0.0)
    b_j = tl.load(b + at_column, mask=columns, other=0.0)
    mass = tl.sum(a_i, 1)
    v_j = tl.log2(b_j)
    u_i = tl.where(a_i > 0, -finite(tl.max(x + v_j[:, None, :], 2)), -float("inf"))
    active = alive
    steps = tl.zeros([PB], tl.int32)
    step = 0
    going = n_iter
    while step < going:
        u_new, e = _rows(x, u_i, v_j, a_i)
        s = tl.sum(e, 1)
        u_i = tl.where(active[:, None], u_new, u_i)
        steps += active.to(tl.int32)
        if STOP:
            # a problem that stops keeps the columns that its error was measured with
            active = active & ~(tl.sum(tl.abs(s - b_j), 1) <= tol * mass)
            going = tl.where(tl.max(active.to(tl.int32), 0) > 0, n_iter, 0)
        v_j = tl.where(active[:, None], _columns(x, u_i, v_j, b_j, s), v_j)
        step += 1
    e = tl.exp2(x + (u_i[:, :, None] + v_j[:, None, :]))
    off = tl.sum(tl.abs(tl.sum(e, 2) - a_i), 1) + tl.sum(tl.abs(tl.sum(e, 1) - b_j), 1)
    tl.store(u + at_row, u_i * LN2, mask=rows)
    tl.store(v + at_column, v_j * LN2, mask=columns)
    tl.store(error + k, off / mass, mask=alive)
    tl.store(count + k, steps, mask=alive)


def solve(
    C: Tensor, a: Tensor, b: Tensor, inv_reg: Tensor, n_iter: int, tol: float | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solve every problem of a batch, none larger than 128 x 128.

    Args:
        C: Cost (B, n, m) or (1, n, m) for all problems, any strides, float32, float16 or bfloat16.
        a: Row weights (B, n), float32.
        b: Column weights (B, m), float32.
        inv_reg: 1 / reg of each problem (B,), float32.
        n_iter: The most iterations, each of rows, then columns.
        tol: L1 error of the columns over all mass, at which a problem stops after its rows were
            moved; None to make every iteration.

    Returns:
        Row potential (B, n), column potential (B, m), the L1 error of both marginals over all mass
        (B,), and the iterations made (B,), int32.
    """
    B, (n, m) = a.shape[0], C.shape[1:]
    axis, div, strides = layout(C)
    PB, BM, BN, warps = small_tile(n, m)
    u, v = torch.empty_like(a, memory_format=torch.contiguous_format), torch.empty_like(b, memory_format=torch.contiguous_format)
    error = torch.empty(B, device=C.device)
    count = torch.empty(B, device=C.device, dtype=torch.int32)
    _solve_small[(triton.cdiv(B, PB),)](
        C, a.contiguous(), b.contiguous(), inv_reg, u, v, error, count, B,
        n // div if axis == 0 else n, m // div if axis == 1 else m, n_iter, float(tol or 0), strides,
        AXIS=axis, DIV=div, STOP=tol is not None, PB=PB, BM=BM, BN=BN, num_warps=warps, **OPTIONS,
    )  # fmt: skip
    return u, v, error, count
