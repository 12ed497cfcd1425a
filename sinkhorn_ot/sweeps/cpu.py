"""What processors do slowly or coarsely unless they are asked rightly.

exp far below zero, the first touch of memory, and sums of many float32 numbers.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


# smallest exponents whose exp is a normal number, and quick
_LEAST = {torch.float64: -707.0, torch.float32: -87.0}
# no rounding takes exp of the least exponent beyond this much of it
_MORE = 1 + 1e-5
# bytes from which NumPy asks the system for large pages, whose first touch costs a fraction of that
# of small ones, and at which the fastest loads are aligned
_LARGE, _LINE = 1 << 22, 64
# terms of a float32 sum, of a column and of a row, whose rounding stays below 1e-7 of it: a column
# is summed term after term, a row in many sums side by side
_DEEP, _LONG = 256, 4096


def exp_(s: Tensor, least: float | None = None) -> Tensor:
    """Exponentiate in place; what is below `least` gives zero.

    Args:
        s: Exponents, of any shape.
        least: An exponent; None means the smallest whose exp is normal.
    """
    least = _LEAST[s.dtype] if least is None else least
    if s.device.type != "cpu":
        return torch.threshold_(s, least, -math.inf).exp_()
    if float(s.amin()) > least:
        return s.exp_()
    return torch.threshold_(s.clamp_(min=least).exp_(), _MORE * math.exp(least), 0.0)


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor without values, as torch.empty does, a large one in large pages."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < _LARGE:
        return torch.empty(shape, dtype=dtype, device=device)
    raw = np.empty(size + _LINE, dtype=np.uint8)
    start = -raw.ctypes.data % _LINE
    return torch.from_numpy(raw[start : start + size]).view(dtype).view(*shape)


def column_sums(K: Tensor, weight: Tensor) -> Tensor:
    """Return weight^T K, (B, m), in float64, for K (B, n, m) and weight (B, n) of its dtype.

    Long columns are summed in pieces, which are added up in float64.
    """
    batch, n, m = K.shape
    pieces = n // _DEEP if K.dtype == torch.float32 else 0
    if pieces < 2:
        return _product(weight[:, None, :], K)[:, 0].double()
    whole = pieces * _DEEP
    parts = torch.bmm(weight[:, :whole].reshape(-1, 1, _DEEP), K[:, :whole].reshape(-1, _DEEP, m))
    s = parts.view(batch, pieces, m).sum(1, dtype=torch.float64)
    return s if whole == n else s + _product(weight[:, None, whole:], K[:, whole:])[:, 0]


def row_sums(K: Tensor, x: Tensor) -> Tensor:
    """Return K x, (B, n), for K (B, n, m) and x (B, m) of its dtype; long rows in pieces."""
    m = K.shape[2]
    if K.dtype != torch.float32 or m <= _LONG:
        return _product(K, x[:, :, None])[:, :, 0]
    parts = (
        _product(K[:, :, at : at + _LONG], x[:, at : at + _LONG, None])[:, :, 0].double()
        for at in range(0, m, _LONG)
    )
    return sum(parts, K.new_zeros(K.shape[:2], dtype=torch.float64)).to(K.dtype)


def _product(A: Tensor, B: Tensor) -> Tensor:
    """Return a batch of products with vectors, without matmul, whose precision users choose."""
    if len(A) > 1:
        return torch.bmm(A, B)
    if A.shape[1] == 1:
        return torch.mv(B[0].t(), A[0, 0])[None, None]
    return torch.mv(A[0], B[0, :, 0])[None, :, None]
