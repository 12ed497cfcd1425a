"""Many small problems, each solved whole on chip, all iterations in one launch.

An iteration in log domain takes one exponential an entry, and is safe from any potential. From its
plan a few more iterations follow by scaling rows and columns alone, two adds and two multiplies an
entry; only then are potentials moved again, by the logarithm of the product of the scales. Scaling
that met a sum near underflow is thrown away and made again in log domain. One read of C in all, so
with tens of iterations arithmetic is the limit, not the memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import OPTIONS, all_registers, layout, small_tile
from .tiles import LN2, LOG2E, TINY, exp2, finite, in_range


@triton.jit
def _rows(x, u, v, a, TWICE: tl.constexpr):
    """Return the row potential that answers the row sums, and the plan at it.

    `TWICE` takes the exponentials again rather than hold them beside `x`.
    """
    e = exp2(x + (u[:, :, None] + v[:, None, :]))
    total = tl.sum(e, 2)
    # nan is lost too
    lost = (a > 0) & ~in_range(total)
    if tl.max(tl.max(lost.to(tl.int32), 1), 0) > 0:
        u = tl.where(lost, -finite(tl.max(x + v[:, None, :], 2)), u)
        e = exp2(x + (u[:, :, None] + v[:, None, :]))
        total = tl.sum(e, 2)
    move = a / total
    u = tl.where(a > 0, u + tl.log2(move), -float("inf"))
    if TWICE:
        live = tl.where(total > 0, u, -float("inf"))
        e = exp2(x + (live[:, :, None] + v[:, None, :]))
    else:
        e *= tl.where((a > 0) & (total > 0), move, 0.0)[:, :, None]
    return u, e


@triton.jit
def _columns(x, u, v, b, s):
    """Return the column potential that answers the column sums `s`."""
    lost = (b > 0) & ~(s > TINY)
    moved = v + tl.log2(b / s)
    if tl.max(tl.max(lost.to(tl.int32), 1), 0) > 0:
        z = x + u[:, :, None]
        top = finite(tl.max(z, 1))
        again = tl.log2(b) - top - tl.log2(tl.sum(exp2(z - top[:, None, :]), 1))
        moved = tl.where(lost, again, moved)
    return tl.where(b > 0, moved, -float("inf"))


@triton.jit
def _scale(e, a, b, s, steps):
    """Scale the plan's columns by their sums `s`, then `steps` times its rows and its columns.

    Returns the products of the later scales, and whether no sum of a problem came near underflow.
    """
    row, column = tl.full(a.shape, 1.0, e.dtype), tl.full(b.shape, 1.0, e.dtype)
    least_row, least_column = row, tl.where(b > 0, s, 1.0)
    e *= tl.where(b > 0, b / s, 0.0)[:, None, :]
    for _ in range(steps):
        total = tl.sum(e, 2)
        w = tl.where(a > 0, a / total, 1.0)
        e *= w[:, :, None]
        s = tl.sum(e, 1)
        t = tl.where(b > 0, b / s, 1.0)
        e *= t[:, None, :]
        row, column = row * w, column * t
        # a nan is passed over, but it came from a sum of zero, which was not
        least_row = tl.where((a > 0) & (total < least_row), total, least_row)
        least_column = tl.where((b > 0) & (s < least_column), s, least_column)
    return row, column, tl.minimum(tl.min(least_row, 1), tl.min(least_column, 1)) > TINY


@triton.jit(do_not_specialize=["B", "n", "m", "n_iter", "tol"])
def _solve_small(  # noqa: PLR0915
    C, a, b, inv_reg, u, v, error, count, B, n, m, n_iter, tol, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, STOP: tl.constexpr, SCALED: tl.constexpr,
    TWICE: tl.constexpr,
    PB: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Solve PB problems, rows then columns, until `n_iter` or an error of the columns of `tol`."""
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
    x = tl.load(C + at, mask=rows[:, :, None] & columns[:, None, :], other=0.0)
    x = x.to(a.dtype.element_ty)
    x *= (tl.load(inv_reg + k, mask=alive, other=1.0) * -LOG2E)[:, None, None]
    a_i = tl.load(a + at_row, mask=rows, other=0.0)
    b_j = tl.load(b + at_column, mask=columns, other=0.0)
    mass = tl.sum(a_i, 1)
    v_j = tl.log2(b_j)
    u_i = tl.where(a_i > 0, -finite(tl.max(x + v_j[:, None, :], 2)), -float("inf"))
    active = alive
    steps = tl.zeros([PB], tl.int32)
    step, careful = 0, 0
    going = n_iter
    while step < going:
        u_new, e = _rows(x, u_i, v_j, a_i, TWICE)
        s = tl.sum(e, 1)
        u_i = tl.where(active[:, None], u_new, u_i)
        steps += active.to(tl.int32)
        step += 1
        if STOP:
            # a problem that stops keeps the columns that its error was measured with
            active = active & ~(tl.sum(tl.abs(s - b_j), 1) <= tol * mass)
            going = tl.where(tl.max(active.to(tl.int32), 0) > 0, n_iter, 0)
        v_new = _columns(x, u_i, v_j, b_j, s)
        v_j = tl.where(active[:, None], v_new, v_j)
        more = tl.minimum(going - step, SCALED)
        if SCALED > 0:
            if (careful == 0) & (more > 0):
                row, column, calm = _scale(e, a_i, b_j, s, more)
                if tl.min((calm | ~active).to(tl.int32), 0) > 0:
                    u_i = tl.where(active[:, None], u_i + tl.log2(row), u_i)
                    v_j = tl.where(active[:, None], v_j + tl.log2(column), v_j)
                    steps += tl.where(active, more, 0)
                    step += more
                else:
                    careful = SCALED
            else:
                careful = tl.maximum(careful - 1, 0)
    e = exp2(x + (u_i[:, :, None] + v_j[:, None, :]))
    off = tl.sum(tl.abs(tl.sum(e, 2) - a_i), 1) + tl.sum(tl.abs(tl.sum(e, 1) - b_j), 1)
    tl.store(u + at_row, u_i * LN2, mask=rows)
    tl.store(v + at_column, v_j * LN2, mask=columns)
    tl.store(error + k, off / mass, mask=alive)
    tl.store(count + k, steps, mask=alive)


def fits(n: int, m: int, dtype: torch.dtype) -> bool:
    """Say whether problems of that size are solved whole, with weights in `dtype`."""
    return small_tile(n, m, dtype.itemsize) is not None


def solve(
    C: Tensor, a: Tensor, b: Tensor, inv_reg: Tensor, n_iter: int, tol: float | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solve every problem of a batch, none larger than `fits` allows.

    Args:
        C: Cost (B, n, m) or (1, n, m) for all problems, any strides and floating dtype.
        a: Row weights (B, n), float32 or float64, in which everything is computed.
        b: Column weights (B, m).
        inv_reg: 1 / reg of each problem (B,).
        n_iter: The most iterations, each of rows, then columns.
        tol: L1 error of the columns over all mass, at which a problem stops after its rows were
            moved, looked at every eighth iteration; None to make every iteration.

    Returns:
        Row potential (B, n), column potential (B, m), the L1 error of both marginals over all mass
        (B,), and the iterations made (B,), int32.
    """
    B, (n, m) = a.shape[0], C.shape[1:]
    axis, div, strides, sizes = layout(C)
    tile = small_tile(n, m, a.itemsize)
    assert tile is not None, f"{n} x {m} is not small"
    a, b = a.contiguous(), b.contiguous()
    u, v, error = torch.empty_like(a), torch.empty_like(b), torch.empty_like(inv_reg)
    count = torch.empty(B, device=C.device, dtype=torch.int32)
    _solve_small[(triton.cdiv(B, tile.PB),)](
        C, a, b, inv_reg, u, v, error, count, B,
        *sizes, n_iter, float(tol or 0), strides,
        AXIS=axis, DIV=div, STOP=tol is not None, **tile._asdict(), **OPTIONS,
        **all_registers(C.device, tile.num_warps),
    )  # fmt: skip
    return u, v, error, count
