"""Steps shared by the kernels, in float32 or float64, whichever the potentials are.

Logarithms inside a kernel are base 2: in float32 exp2 is one instruction. In float64 there is none,
and what a GPU's library calls takes a branch for each entry, so here is one without.
"""

import triton
import triton.language as tl


LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
# a sum of exponentials outside this range is taken again from its maximum
TINY = tl.constexpr(1e-30)
HUGE = tl.constexpr(1e30)

# (2^f - 1) / f within 2e-17 for |f| <= 1/2, by interpolation in Chebyshev's nodes; highest first
_POWERS = tl.constexpr(
    (
        4.4549605981865186e-10,
        7.072585949269223e-09,
        1.0178062445845774e-07,
        1.321544258792169e-06,
        1.525273382983612e-05,
        0.0001540353044173605,
        0.0013333558146416936,
        0.009618129107606888,
        0.0555041086648216,
        0.24022650695910097,
        0.6931471805599453,
        1.0,
    )
)
# added to n it leaves n + 1023, which are the bits of 2^n, in the lowest bits of the sum
_ROUND = tl.constexpr(1.5 * 2**52 + 1023)


@triton.jit
def exp2(x):
    """Return 2^x; in float64 to about one rounding, 0 below 2^-1022.5 and inf above 2^1023.5."""
    if x.dtype == tl.float64:
        # nan stays what it is
        x = tl.where(x < -1023.0, -1023.0, x)
        x = tl.where(x > 1024.0, 1024.0, x)
        rounded = x + _ROUND
        f = x - (rounded - _ROUND)
        y = f * _POWERS[0] + _POWERS[1]
        for k in tl.static_range(2, 12):
            y = y * f + _POWERS[k]
        y *= (rounded.to(tl.int64, bitcast=True) << 52).to(tl.float64, bitcast=True)
    else:
        y = tl.exp2(x)
    return y


@triton.jit
def extent(
    lengths, problem, n, m, AXIS: tl.constexpr, DIV: tl.constexpr, RAGGED: tl.constexpr
):  # fmt: skip
    """Return how many first rows and columns of a problem are read: all, unless `RAGGED`.

    Of the contiguous ones so many that `DIV` divides them, or wide loads would be lost.
    """
    if RAGGED:
        n = tl.load(lengths + 2 * problem)
        m = tl.load(lengths + 2 * problem + 1)
        if AXIS == 0:
            n = tl.cdiv(n, DIV) * DIV
        if AXIS == 1:
            m = tl.cdiv(m, DIV) * DIV
    return n, m


@triton.jit
def in_range(total):
    """Say whether a sum of exponentials has all its digits; nan has none."""
    return (total > TINY) & (total < HUGE)


@triton.jit
def finite(peak):
    """Return a maximum that may be subtracted: 0 where there was nothing to take it over."""
    return tl.where(peak == -float("inf"), 0.0, peak)


@triton.jit
def fold(peak, total, z, axis: tl.constexpr):
    """Fold the tile `z` along `axis` into a running maximum and a sum of 2^(z - maximum)."""
    new = tl.maximum(peak, tl.max(z, axis))
    top = finite(new)
    total = total * exp2(peak - top) + tl.sum(exp2(z - tl.expand_dims(top, axis)), axis)
    return new, total


@triton.jit
def merge(peak, total, axis: tl.constexpr):
    """Merge pairs of maximum and sum along `axis` into one; a pair (-inf, 0) is neutral."""
    new = tl.max(peak, axis)
    top = finite(new)
    return new, tl.sum(total * exp2(peak - tl.expand_dims(top, axis)), axis)


@triton.jit
def offsets(i, j, strides, AXIS: tl.constexpr, DIV: tl.constexpr):
    """Return 64-bit offsets of the entries (i, j); `AXIS` is contiguous, the others go by `DIV`.

    Row blocks stay 64 bit and columns 32 bit where the stride is one, which halves the address
    arithmetic. See `configs.Layout` for how the strides were divided.
    """
    if AXIS == 1:
        at = (i.to(tl.int64) * strides[1] * DIV)[:, None] + j[None, :]
    elif AXIS == 0:
        at = i[:, None] + (j.to(tl.int64) * strides[2] * DIV)[None, :]
    else:
        at = (i.to(tl.int64) * strides[1])[:, None] + (j.to(tl.int64) * strides[2])[None, :]
    return at
