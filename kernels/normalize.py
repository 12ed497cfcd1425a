"""Rows and columns scaled in turn, and derivatives through all steps: one launch each.

A program holds whole matrices. With `E = exp(x - max_j x)` a step is two sums of products and a few
divisions, `alpha = a / (E beta)`, `beta = b / (alpha E)`; an exponential an entry is taken once.
Matrices whose exponents reach too far for that, or whose neighbours' do, take their steps by
logarithms, an exponential an entry and half step. Going back, the steps are taken again and
1 / (alpha E) of each is put aside, in memory of the program that its next matrices use again; what
the rows had follows from it. By logarithms, what each half step added is put aside.

A 4 x 4 matrix has a thread of its own: counted in the code for sm_90, an iteration takes 132
instructions forward and 330 back, 8 and 12 of them special functions, and no word with neighbours.
So 65536 of them, 20 times, should take an H200 6 us forward (2 us are their memory) and 14 us back.
Going back, a number for each column and step is written and read again, which stays in the cache.
"""

import struct
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import (
    OPTIONS,
    NormalizeTile,
    all_registers,
    layout,
    multiprocessors,
    normalize_tile,
)
from .launch import launch
from .tiles import LN2, LOG2E, exp2, finite


# how far exponents may reach for products of E, alpha and beta to be normal numbers
_REACH = {torch.float32: 36.0, torch.float64: 300.0}
# what has no weight may be larger than what has, by as much in its logarithm
_MOST = tl.constexpr(40.0)
# numbers that the programs of a multiprocessor put aside at most, if one has room for its own
_ASIDE = 1 << 16


@triton.jit
def _places(i, j, k, strides, AXIS: tl.constexpr, DIV: tl.constexpr):
    """Return 64-bit offsets of the entries (i, j) of problems k; see `configs.Layout`."""
    down = i.to(tl.int64) * strides[1] * (DIV if AXIS == 1 else 1)
    right = j.to(tl.int64) * strides[2] * (DIV if AXIS == 0 else 1)
    return down[:, None, None] + right[None, :, None] + (k * strides[0] * DIV)[None, None, :]


@triton.jit
def _exponents(X, at, inside, scale, ACC: tl.constexpr):
    """Return exponents, at most zero: what a row loses its first step forgets.

    `scale` comes as the bits of a float64, which a number of Python is not in a kernel.
    """
    x = tl.load(X + at, mask=inside, other=-float("inf")).to(ACC)
    x -= finite(tl.max(x, 1))[:, None, :]
    return x * scale.to(tl.float64, bitcast=True).to(ACC)


@triton.jit
def _is_near(x, a, b, n_iter, reach):
    """Say whether all matrices of a program allow steps without logarithms; nan does."""
    low = tl.max(tl.max(tl.where(x == -float("inf"), 0.0, -x), 1), 0)
    size_a = tl.max(tl.where(a > 0, tl.abs(_log(a)), 0.0), 0)
    size_b = tl.max(tl.where(b > 0, tl.abs(_log(b)), 0.0), 0)
    # scales drift where the sums of rows and columns differ; there may be no problem
    total_a, total_b = tl.sum(a, 0), tl.sum(b, 0)
    drift = tl.where((total_a > 0) & (total_b > 0), tl.abs(_log(total_a / total_b)), 0.0)
    far = low + size_a + size_b + drift * n_iter > reach
    return tl.max(far.to(tl.int32), 0) == 0


@triton.jit
def _exp(x):
    return exp2(x * LOG2E)


@triton.jit
def _log(x):
    return tl.log2(x) * LN2


@triton.jit
def _inverse(total):
    return tl.where(total > 0, 1.0 / total, 0.0)


@triton.jit
def _scales(E, beta, a, b):
    """Return what a step scales by: f and g of rows and columns, and times a and b."""
    f = _inverse(tl.sum(E * beta[None, :, :], 1))
    alpha = a * f
    g = _inverse(tl.sum(E * alpha[:, None, :], 0))
    return f, g, alpha, b * g


@triton.jit
def _move(z, axis: tl.constexpr):
    """Return -log sum exp(z) along an axis; zero for a sum of nothing, which nothing scales."""
    top = finite(tl.max(z, axis))
    total = tl.sum(_exp(z - tl.expand_dims(top, axis)), axis)
    return tl.where(total > 0, -top - _log(total), 0.0)


@triton.jit
def _weights(w, k, alive, index, size, of, step, EVEN: tl.constexpr, ACC: tl.constexpr):
    """Return weights, zero where there is none: equal ones of a total of `of`, or those given.

    `step` is zero if all problems share them.
    """
    inside = (index < size)[:, None] & alive[None, :]
    if EVEN:
        part = tl.zeros(inside.shape, ACC) + of
        weights = tl.where(inside, part / size, 0.0)
    else:
        weights = tl.load(w + index[:, None] + k[None, :] * step, mask=inside, other=0.0)
    return weights


@triton.jit(do_not_specialize=["B", "n", "m", "n_iter", "scale", "step_a", "step_b"])
def _normalize(
    X, a, b, Y, B, n, m, n_iter, scale, reach, step_a, step_b, strides,
    AXIS: tl.constexpr, DIV: tl.constexpr, LOG: tl.constexpr, EVEN: tl.constexpr,
    ACC: tl.constexpr, PB: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Scale PB matrices, rows then columns, n_iter times; write them or their logs."""
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    k = tl.program_id(0).to(tl.int64) * PB + tl.arange(0, PB)
    i, j = tl.arange(0, BM), tl.arange(0, BN)
    alive = k < B
    inside = (i < n)[:, None, None] & (j < m)[None, :, None] & alive[None, None, :]
    at = _places(i, j, k, strides, AXIS, DIV)
    a_i = _weights(a, k, alive, i, n, n, step_a, EVEN, ACC)
    b_j = _weights(b, k, alive, j, m, n, step_b, EVEN, ACC)
    x = _exponents(X, at, inside, scale, ACC)
    if _is_near(x, a_i, b_j, n_iter, reach):
        y = _exp(x)
        alpha, beta = tl.full(a_i.shape, 1.0, a_i.dtype), tl.full(b_j.shape, 1.0, b_j.dtype)
        for _ in range(n_iter):
            _f, _g, alpha, beta = _scales(y, beta, a_i, b_j)
        if LOG:
            y = x + _log(alpha)[:, None, :] + _log(beta)[None, :, :]
        else:
            y *= alpha[:, None, :] * beta[None, :, :]
    else:
        log_a, log_b = _log(a_i), _log(b_j)
        weight = tl.zeros_like(b_j)
        y = x
        for _ in range(n_iter):
            y += _move(y + weight[None, :, :], 1)[:, None, :]
            y += _move(y + log_a[:, None, :], 0)[None, :, :]
            weight = log_b
        y += log_a[:, None, :] + log_b[None, :, :]
        if not LOG:
            y = _exp(y)
    tl.store(Y + at, y.to(Y.dtype.element_ty), mask=inside)


@triton.jit
def _back_by_scales(x, G, a, b, columns, each, n_iter, LOG: tl.constexpr):
    """Return derivatives to the exponents, to a and to b; see `gradients/layer/scaled.py`."""
    E = _exp(x)
    f, g = tl.zeros_like(a), tl.zeros_like(b)
    alpha, beta = f, tl.full(b.shape, 1.0, b.dtype)
    for step in range(n_iter):
        f, g, alpha, beta = _scales(E, beta, a, b)
        tl.store(columns + step * each, g)
    tl.debug_barrier()
    if LOG:
        live = (E > 0) & (alpha > 0)[:, None, :] & (beta > 0)[None, :, :]
        G = tl.where(live, G, 0.0)
        rho = tl.where(a > 0, tl.sum(G, 1) / a, 0.0)
        sigma = tl.where(b > 0, tl.sum(G, 0) / b, 0.0)
        to_E = tl.where(live, -G / E, 0.0)
    else:
        rho = tl.sum(E * G * beta[None, :, :], 1) * f
        sigma = tl.sum(E * G * alpha[:, None, :], 0) * g
        to_E = -G * (alpha[:, None, :] * beta[None, :, :])
    to_a, to_b = tl.zeros_like(a), sigma
    for step in range(n_iter):
        # before the first step no column was scaled
        last = step == n_iter - 1
        g = tl.where(last, 0.0, tl.load(columns + tl.maximum(n_iter - 2 - step, 0) * each))
        before = tl.where(last, 1.0, b * g)
        f = _inverse(tl.sum(E * before[None, :, :], 1))
        alpha = a * f
        down = beta * sigma
        to_E += alpha[:, None, :] * down[None, :, :]
        rho -= tl.sum(E * down[None, :, :], 1) * f
        to_a += rho
        across = alpha * rho
        to_E += across[:, None, :] * before[None, :, :]
        sigma = -tl.sum(E * across[:, None, :], 0) * g
        to_b += sigma
        rho = tl.zeros_like(rho)
        beta = before
    return -to_E * E, to_a, to_b


@triton.jit
def _back_by_logs(x, G, a, b, rows, columns, each, n_iter, LOG: tl.constexpr):
    """Return derivatives to the exponents, to a and to b.

    What is moved is the matrix, which comes near its answer, and not potentials, which are as large
    as the exponents: these would be rounded as such.
    """
    log_a, log_b = _log(a), _log(b)
    most_a = tl.where(a > 0, float("inf"), _MOST)[:, None, :]
    most_b = tl.where(b > 0, float("inf"), _MOST)[None, :, :]
    weight = tl.zeros_like(b)
    for step in range(n_iter):
        move = _move(x + weight[None, :, :], 1)
        x += move[:, None, :]
        tl.store(rows + step * each, move)
        move = _move(x + log_a[:, None, :], 0)
        x += move[None, :, :]
        tl.store(columns + step * each, move)
        weight = log_b
    tl.debug_barrier()
    if LOG:
        to_x = tl.where(x + log_a[:, None, :] + log_b[None, :, :] > -float("inf"), G, 0.0)
        rho = tl.where(a > 0, tl.sum(to_x, 1) / a, 0.0)
        sigma = tl.where(b > 0, tl.sum(to_x, 0) / b, 0.0)
    else:
        rho = tl.sum(_exp(tl.minimum(x + log_b[None, :, :], most_a)) * G, 1)
        moved = _exp(tl.minimum(x + log_a[:, None, :], most_b)) * G
        sigma = tl.sum(moved, 0)
        to_x = moved * b[None, :, :]
    to_a, to_b = tl.zeros_like(a), sigma
    for step in range(n_iter):
        at = (n_iter - 1 - step) * each
        moved = _exp(tl.minimum(x + log_b[None, :, :], most_a)) * sigma[None, :, :]
        rho -= tl.sum(moved, 1)
        to_x -= moved * a[:, None, :]
        to_a += rho
        x -= tl.load(columns + at)[None, :, :]
        moved = _exp(tl.minimum(x + log_a[:, None, :], most_b)) * rho[:, None, :]
        # the first step of the rows knew no weights of the columns
        last = step == n_iter - 1
        to_x -= moved * tl.where(last, 1.0, b)[None, :, :]
        sigma = tl.where(last, 0.0, -tl.sum(moved, 0))
        x -= tl.load(rows + at)[:, None, :]
        to_b += sigma
        rho = tl.zeros_like(rho)
    return to_x, to_a, to_b


@triton.jit(do_not_specialize=["B", "n", "m", "n_iter", "scale", "step_a", "step_b"])
def _normalize_back(
    G, X, a, b, kept, to_X, to_a, to_b, B, n, m, n_iter, scale, reach, step_a, step_b,
    strides, strides_G,
    AXIS: tl.constexpr, DIV: tl.constexpr, AXIS_G: tl.constexpr, DIV_G: tl.constexpr,
    LOG: tl.constexpr, WEIGHTS: tl.constexpr, EVEN: tl.constexpr, ACC: tl.constexpr,
    PB: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Take the steps again and go back through them, PB matrices at a time."""
    n = n * DIV if AXIS == 0 else n
    m = m * DIV if AXIS == 1 else m
    i, j = tl.arange(0, BM), tl.arange(0, BN)
    # what each step puts aside, of rows and then of columns
    each = PB * (BM + BN)
    kept += tl.program_id(0).to(tl.int64) * n_iter * each
    p = tl.arange(0, PB)[None, :]
    kept_a, kept_b = kept + i[:, None] * PB + p, kept + PB * BM + j[:, None] * PB + p
    for block in range(tl.program_id(0), tl.cdiv(B, PB), tl.num_programs(0)):
        k = block * PB + tl.arange(0, PB).to(tl.int64)
        alive = k < B
        inside = (i < n)[:, None, None] & (j < m)[None, :, None] & alive[None, None, :]
        at = _places(i, j, k, strides, AXIS, DIV)
        a_i = _weights(a, k, alive, i, n, n, step_a, EVEN, ACC)
        b_j = _weights(b, k, alive, j, m, n, step_b, EVEN, ACC)
        x = _exponents(X, at, inside, scale, ACC)
        g = tl.load(G + _places(i, j, k, strides_G, AXIS_G, DIV_G), mask=inside, other=0.0)
        g = g.to(ACC)
        if _is_near(x, a_i, b_j, n_iter, reach):
            z, for_a, for_b = _back_by_scales(x, g, a_i, b_j, kept_b, each, n_iter, LOG)
        else:
            z, for_a, for_b = _back_by_logs(x, g, a_i, b_j, kept_a, kept_b, each, n_iter, LOG)
        tl.store(
            to_X + at,
            (z * scale.to(tl.float64, bitcast=True).to(z.dtype)).to(to_X.dtype.element_ty),
            mask=inside,
        )
        if WEIGHTS:
            rows, columns = (i < n)[:, None] & alive[None, :], (j < m)[:, None] & alive[None, :]
            tl.store(to_a + i[:, None] + k[None, :] * n, for_a, mask=rows)
            tl.store(to_b + j[:, None] + k[None, :] * m, for_b, mask=columns)
        # the next matrices write where these were read
        tl.debug_barrier()


class _Posed(NamedTuple):
    """What both kernels are given of a problem.

    Attributes:
        tile: How matrices are held on chip.
        weights: Row and column weights; what is not read if there are none.
        before: What stands before the strides, from the batch on.
        constants: Constants of the kernels and options of the compiler.
    """

    tile: NormalizeTile
    weights: tuple[Tensor, Tensor]
    before: tuple[float, ...]
    constants: dict[str, Any]


def _posed(
    x: Tensor, a: Tensor | None, b: Tensor | None, scale: float, n_iter: int, log: bool, back: bool
) -> _Posed:
    B, n, m = x.shape
    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    tile = normalize_tile(n, m, work.itemsize, back)
    assert tile is not None, f"{n} x {m} is not small"
    how = layout(x)
    even = a is None or b is None
    # a pointer that a constant switch leaves unread still has to be one
    a, b = (x, x) if a is None or b is None else (a.contiguous(), b.contiguous())
    steps = (0, 0) if even else (n * (len(a) > 1), m * (len(b) > 1))
    bits = int.from_bytes(struct.pack("<d", scale), "little")
    constants: dict[str, Any] = {
        "AXIS": how.axis, "DIV": how.div, "LOG": log, "EVEN": even,
        "ACC": tl.float64 if work == torch.float64 else tl.float32,
        **tile._asdict(), **OPTIONS, **all_registers(x.device, tile.num_warps),
    }  # fmt: skip
    before = (B, *how.sizes, n_iter, bits, _REACH[work], *steps)
    return _Posed(tile, (a, b), before, constants)


def serves(n: int, m: int, dtype: torch.dtype) -> bool:
    """Say whether n x m matrices are held on chip, computed in this dtype."""
    return normalize_tile(n, m, dtype.itemsize, back=True) is not None


def matrices(
    x: Tensor, a: Tensor | None, b: Tensor | None, scale: float, n_iter: int, log: bool, *,
    out: Tensor,
) -> Tensor:  # fmt: skip
    """Write exp(scale * x) with rows and columns scaled in turn, or its log, to `out`; return it.

    Everything is computed in float32, or in float64 if x is.

    Args:
        x: Logits (B, n, m), any floating dtype and strides, as `out` has them.
        a: Sums of the rows (B, n), or (1, n) for all, in the dtype of the computation; None, as
            for b, for one each.
        b: Sums of the columns (B, m) or (1, m); None for n / m each.
        scale: What the logits are multiplied by.
        n_iter: Steps, at least one.
        log: Whether to write logs.
        out: Where to.
    """
    p = _posed(x, a, b, scale, n_iter, log, back=False)
    blocks = triton.cdiv(len(x), p.tile.PB)
    launch(_normalize, blocks, x, *p.weights, out, *p.before, layout(x).strides, **p.constants)
    return out


def derivatives(
    G: Tensor, x: Tensor, a: Tensor | None, b: Tensor | None, scale: float, n_iter: int, log: bool,
    weights: bool, *, out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Write derivatives to x to `out`; return them, and those to a (B, n) and b (B, m).

    Args:
        G: Derivatives to what `matrices` returns, of its shape, any strides.
        x: As in `matrices`, and so up to `log`.
        a: Sums of the rows.
        b: Sums of the columns.
        scale: What the logits are multiplied by.
        n_iter: Steps, at least one.
        log: Whether G is of the logs.
        weights: Whether those to a and b are wanted; if not they are empty.
        out: Where to, with the strides of x.
    """
    B, n, m = x.shape
    p = _posed(x, a, b, scale, n_iter, log, back=True)
    tile, of_G = p.tile, layout(G)
    aside = n_iter * tile.PB * (tile.BM + tile.BN)
    many = max(1, min(16 // tile.num_warps, _ASIDE // aside))
    programs = min(triton.cdiv(B, tile.PB), multiprocessors(x.device) * many)
    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    kept = x.new_empty(programs * aside, dtype=work)
    to_a, to_b = (kept.new_empty((B, size) if weights else 0) for size in (n, m))
    unread = (to_a, to_b) if weights else (kept, kept)
    launch(
        _normalize_back, programs, G, x, *p.weights, kept, out, *unread, *p.before,
        layout(x).strides, of_G.strides, AXIS_G=of_G.axis, DIV_G=of_G.div, WEIGHTS=weights,
        **p.constants,
    )  # fmt: skip
    return out, to_a, to_b
