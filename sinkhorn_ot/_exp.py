"""exp of numbers that may be far below zero, where a processor's library is many times slower."""

import math

import torch
from torch import Tensor


# smallest exponents whose exp is a normal number, and quick
_LEAST = {torch.float64: -707.0, torch.float32: -87.0}
# no rounding takes exp of the least exponent beyond this much of it
_MORE = 1 + 1e-5


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
