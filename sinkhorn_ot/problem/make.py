"""The making of a problem: every argument is checked, once."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import checks
from .cost import Bounds, broadcast
from .dense import as_cost
from .marginals import MASS_RTOL, equal_mass, held, relaxation, weights
from .problem import EXACT, Problem
from .rows import number


# how many times its spread the least cost must be for it to be taken off: then that is exact
_FAR = 10.0
# how wrong a plan may be only because its exponents are rounded
_RESOLUTION = 0.01


def make(
    cost: Any,
    a: Any = None,
    b: Any = None,
    reg: Any = None,
    unbalanced: Any = None,
    *,
    values: bool = True,
) -> Problem:
    """Check every argument and return the flat problem.

    Args:
        cost: Tensor or array (..., n, m), or a cost object.
        a: Source weights (..., n); None means 1/n each.
        b: Target weights (..., m); None means 1/m each.
        reg: A number above zero or one per problem; None for exact transport.
        unbalanced: None, one KL penalty for both marginals, or one for each.
        values: Whether to look at the numbers too, which on CUDA waits for the device.

    Raises:
        ValueError: If an argument breaks a rule; the message names it.
    """
    cost = as_cost(cost)
    if cost.device.type == "meta":
        raise ValueError("cost must hold numbers, got a tensor on the meta device")
    n, m = cost.shape
    relax = relaxation(unbalanced)
    a, b = weights("a", a, n, cost, values), weights("b", b, m, cost, values)
    batch = broadcast("cost", cost.batch_shape, "a", a.shape[:-1])
    batch = broadcast("cost and a", batch, "b", b.shape[:-1])
    dtype = torch.float64 if cost.dtype == torch.float64 else torch.float32
    work = torch.float64 if cost.device.type == "cpu" else dtype
    rtol = max(MASS_RTOL[a.dtype], MASS_RTOL[b.dtype])
    # copies: who changes weights in place later must not change a result
    a = a.to(work, copy=True).expand(*batch, n).reshape(-1, n)
    b = b.to(work, copy=True).expand(*batch, m).reshape(-1, m)
    if dtype == torch.float32 and values:
        held("a", a)
        held("b", b)
    if relax == EXACT:
        b = equal_mass(a, b, rtol if values else math.inf)
    bounds = cost.validate() if values else Bounds(-math.inf, math.inf)
    reg = _regularisation(reg, batch, cost.device, values).reshape(-1).to(work)
    p = Problem(cost.flat(batch), a, b, reg, relax, batch, dtype, bounds)
    p = replace(p, shift=_shift(p))
    if values:
        _resolved(p)
    if bounds.forbids:
        _reachable(p)
    return p


def _regularisation(reg: Any, batch: torch.Size, device: torch.device, values: bool) -> Tensor:
    if reg is None:
        return torch.zeros(batch, dtype=torch.float64, device=device)
    if isinstance(reg, Tensor):
        reg = checks.constant("reg", reg)
    if not isinstance(reg, (Tensor, np.ndarray, list, tuple)) or getattr(reg, "ndim", 1) == 0:
        reg = checks.positive("reg", reg)
        return torch.full(batch, reg, dtype=torch.float64, device=device)
    if not isinstance(reg, Tensor) and (whole := np.asarray(reg)).dtype.kind in "iu":
        reg = whole.astype(np.float64)
    t = checks.tensor("reg", reg).to(device, torch.float64)
    if values and not bool(((t > 0) & (t < math.inf)).all()):
        checks.refuse("reg", "be finite and above zero", t, ~((t > 0) & (t < math.inf)))
    try:
        return t.expand(batch)
    except RuntimeError:
        raise ValueError(
            f"reg must be one number or one per problem, shape {tuple(batch)}, got {tuple(t.shape)}"
        ) from None


def _shift(p: Problem) -> float:
    """Return the least cost, where it is so large that it would take digits from the others.

    With penalties the level of the potentials counts, and kernels of an accelerator take none off.
    """
    low, high, _ = p.bounds
    far = math.isfinite(low) and abs(low) > _FAR * (high - low)
    portable = p.a.device.type == "cpu"
    return low if far and portable and p.exact else 0.0


def _resolved(p: Problem) -> None:
    """Raise if reg is so small that rounding the exponents would decide the plan."""
    reg = float(p.reg.min())
    # exact transport has none
    if reg == 0:
        return
    # what is taken off has been rounded with the rest
    least = max(torch.finfo(p.work).tiny, p.rounding() / _RESOLUTION * reg)
    if reg < least:
        raise ValueError(
            f"reg must be at least {least:.3g} for {p.work} to resolve cost / reg, got {reg:.3g}: "
            "raise it, subtract a constant from the cost, or forbid outlying pairs by inf"
        )


def _reachable(p: Problem) -> None:
    """Raise if a point with weight has only forbidden partners."""
    column_open = torch.zeros_like(p.b, dtype=torch.bool)
    for rows, C in p.cost.tiles(max(1, (1 << 20) // p.shape[2])):
        allowed, weighs = math.inf > C, p.a[:, rows] > 0
        row = (allowed & (p.b > 0)[:, None, :]).any(-1) | ~weighs
        if p.relax[0] == math.inf and not bool(row.all()):
            k, i = checks.first_index(~row)
            _stranded("row", "a", k, number(rows, i), p)
        column_open |= (allowed & weighs[:, :, None]).any(-2)
    column_open |= p.b <= 0
    if p.relax[1] == math.inf and not bool(column_open.all()):
        k, j = checks.first_index(~column_open)
        _stranded("column", "b", k, j, p)


def _stranded(kind: str, weight: str, k: int, i: int, p: Problem) -> None:
    where = f" of problem {k}" if p.shape[0] > 1 else ""
    raise ValueError(
        f"cost must leave every point with weight a partner: {kind} {i}{where} has positive "
        f"{weight} but only infinite costs, so no plan exists"
    )
