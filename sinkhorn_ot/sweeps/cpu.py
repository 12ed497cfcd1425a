"""What processors do slowly unless they are asked rightly: exp far below zero, fresh memory."""

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
