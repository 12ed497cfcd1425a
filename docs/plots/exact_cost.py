"""The unregularised optimum, for figures that compare with it."""

import ot
from torch import Tensor


def optimum(C: Tensor, a: Tensor, b: Tensor) -> float:
    """Return the least transport cost."""
    return float(ot.emd2(a.numpy(), b.numpy(), C.numpy()))
