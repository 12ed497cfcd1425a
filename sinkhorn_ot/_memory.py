"""Large tensors in large pages, whose first touch costs a fraction of that of small ones."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


# bytes from which NumPy asks the system for large pages, and at which the fastest loads are aligned
_LARGE, _LINE = 1 << 22, 64


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor without values, as torch.empty does."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < _LARGE:
        return torch.empty(shape, dtype=dtype, device=device)
    raw = np.empty(size + _LINE, dtype=np.uint8)
    start = -raw.ctypes.data % _LINE
    return torch.from_numpy(raw[start : start + size]).view(dtype).view(*shape)
