"""What processors do slowly or coarsely unless they are asked rightly.

exp far below zero, what few numbers are, the first touch of memory, and sums of many float32
numbers.
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
# numbers of which NumPy takes exponentials and logarithms in half the time of one torch thread;
# where there is but one, any
_FEW = 1 << 16
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
    if s.device.type != "cpu" or not s.numel():
        return torch.threshold_(s, least, -math.inf).exp_()
    normal = float(s.amin()) > least
    normal_exp_(s if normal else s.clamp_(min=least))
    return s if normal else torch.threshold_(s, _MORE * math.exp(least), 0.0)


def normal_exp_(s: Tensor) -> Tensor:
    """Exponentiate in place what gives normal numbers."""
    return _by_numpy(np.exp, s) if _quicker(s) else s.exp_()


def log_(s: Tensor) -> Tensor:
    """Take logarithms in place."""
    return _by_numpy(np.log, s) if _quicker(s) else s.log_()


def _quicker(s: Tensor) -> bool:
    """Whether NumPy is quicker and as good: in single precision it is a digit coarser."""
    if s.device.type != "cpu" or s.dtype != torch.float64:
        return False
    return s.numel() <= _FEW or torch.get_num_threads() == 1


def _by_numpy(function: np.ufunc, s: Tensor) -> Tensor:
    held = s.numpy()
    with np.errstate(all="ignore"):
        function(held, out=held)
    return s


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor without values, as torch.empty does, a large one in large pages."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < _LARGE:
        return torch.empty(shape, dtype=dtype, device=device)
    raw = np.empty(size + _LINE, dtype=np.uint8)
    start = -raw.ctypes.data % _LINE
    return torch.from_numpy(raw[start : start + size]).view(dtype).view(*shape)


def column_sums(K: Tensor, weight: Tensor) -> Tensor:
    """Return weight^T K, (m,), for K (n, m) and weight (n,) of its dtype.

    Long columns of single precision are summed in pieces, which are added up in float64.
    """
    n, m = K.shape
    # without matmul, whose precision users choose
    if n < 2 * _DEEP or K.dtype != torch.float32:
        return torch.mv(K.t(), weight)
    whole = n // _DEEP * _DEEP
    parts = torch.bmm(weight[:whole].view(-1, 1, _DEEP), K[:whole].reshape(-1, _DEEP, m))
    s = parts.sum(0, dtype=torch.float64)[0]
    return s if whole == n else s.add_(torch.mv(K[whole:].t(), weight[whole:]))


def row_sums(K: Tensor, x: Tensor) -> Tensor:
    """Return K x, (n,), for K (n, m) and x (m,) of its dtype; long rows in pieces likewise."""
    if K.shape[1] <= _LONG or K.dtype != torch.float32:
        return torch.mv(K, x)
    parts = zip(torch.split(K, _LONG, 1), torch.split(x, _LONG), strict=True)
    s = torch.zeros(len(K), dtype=torch.float64)
    for part, some in parts:
        s += torch.mv(part, some)
    return s


def batch_column_sums(K: Tensor, weight: Tensor) -> Tensor:
    """Return `column_sums` of every problem, (B, m), for K (B, n, m) and weight (B, n)."""
    if K.shape[1] < 2 * _DEEP or K.dtype != torch.float32:
        return torch.bmm(weight[:, None, :], K)[:, 0]
    return torch.stack([column_sums(*pair) for pair in zip(K, weight, strict=True)])


def batch_row_sums(K: Tensor, x: Tensor) -> Tensor:
    """Return `row_sums` of every problem, (B, n), for K (B, n, m) and x (B, m)."""
    if K.shape[2] <= _LONG or K.dtype != torch.float32:
        return torch.bmm(K, x[:, :, None])[:, :, 0]
    return torch.stack([row_sums(*pair) for pair in zip(K, x, strict=True)])
