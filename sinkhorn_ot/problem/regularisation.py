"""How sharp a plan may be: the regularisation that is given, and what numbers can resolve."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import checks
from .problem import Problem


# how many times its spread the least cost must be for it to be taken off: then that is exact
_FAR = 10.0
# how wrong a plan may be only because its exponents are rounded
_RESOLUTION = 0.01
# what the caller is told; who calls reg by another name tells it otherwise
UNRESOLVED = (
    "reg must be at least {least:.3g} for {dtype} to resolve cost / reg, got {reg:.3g}: "
    "raise it, subtract a constant from the cost, or forbid outlying pairs by inf"
)


def regularisation(reg: Any, batch: torch.Size, device: torch.device, values: bool) -> Tensor:
    """Return one regularisation per problem, float64; zero if there is none."""
    if reg is None:
        return torch.zeros(batch, dtype=torch.float64, device=device)
    if isinstance(reg, Tensor):
        reg = checks.present("reg", checks.constant("reg", checks.plain("reg", reg)))
    if not isinstance(reg, (Tensor, np.ndarray, list, tuple)) or getattr(reg, "ndim", 1) == 0:
        reg = checks.positive("reg", reg)
        return torch.full(batch, reg, dtype=torch.float64, device=device)
    t = checks.tensor("reg", reg, whole=True).to(device, torch.float64)
    if values and not bool(((t > 0) & (t < math.inf)).all()):
        checks.refuse("reg", "be finite and above zero", t, ~((t > 0) & (t < math.inf)))
    try:
        return t.expand(batch)
    except RuntimeError:
        raise ValueError(
            f"reg must be one number or one per problem, shape {tuple(batch)}, got {tuple(t.shape)}"
        ) from None


def least_cost(p: Problem) -> float:
    """Return the least cost, where it is so large that it would take digits from the others.

    An exact side's potential takes it back. Beside penalties on both it would change the plan, and
    kernels of an accelerator take none off.
    """
    low, high, _ = p.bounds
    far = math.isfinite(low) and abs(low) > _FAR * (high - low)
    portable = p.a.device.type == "cpu"
    return low if far and portable and math.inf in p.relax else 0.0


def resolved(p: Problem, otherwise: str = UNRESOLVED) -> Problem:
    """Return the problem; raise if reg is so small that rounding the exponents would decide it."""
    reg = float(p.reg.min())
    # what is taken off has been rounded with the rest; exact transport has none
    least = max(torch.finfo(p.work).tiny, p.rounding() / _RESOLUTION * reg) if reg else 0.0
    if reg < least:
        raise ValueError(
            otherwise.format(least=least, reg=reg, most=1 / least, inverse=1 / reg, dtype=p.work)
        )
    return p
