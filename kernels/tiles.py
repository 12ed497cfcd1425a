"""Steps shared by the kernels. Logarithms inside a kernel are base 2: exp2 is one instruction."""

import triton
import triton.language as tl


LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
# a sum of exponentials outside this range is taken again from its maximum
TINY = tl.constexpr(1e-30)
HUGE = tl.constexpr(1e30)


@triton.jit
def finite(peak):
    """Return a maximum that may be subtracted: 0 where there was nothing to take it over."""
    return tl.where(peak == -float("inf"), 0.0, peak)


@triton.jit
def fold(peak, total, z, axis: tl.constexpr):
    """Fold the tile `z` along `axis` into a running maximum and a sum of 2^(z - maximum)."""
    new = tl.maximum(peak, tl.max(z, axis))
    top = finite(new)
    total = total * tl.exp2(peak - top) + tl.sum(tl.exp2(z - tl.expand_dims(top, axis)), axis)
    return new, total


@triton.jit
def merge(peak, total, axis: tl.constexpr):
    """Merge pairs of maximum and sum along `axis` into one; a pair (-inf, 0) is neutral."""
    new = tl.max(peak, axis)
    top = finite(new)
    return new, tl.sum(total * tl.exp2(peak - tl.expand_dims(top, axis)), axis)


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
