"""How sharp a plan may be: the regularisation that is given, and what numbers can resolve."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import checks
from .costs import Bounds, Dense
from .problem import Problem


# how many times its spread the least cost must be for it to be taken off: then that is exact
_FAR = 10.0
# how wrong a plan may be only because its exponents are rounded
_RESOLUTION = 0.01
# how many times reg a pair must cost more than it could save to carry nothing in any format
_NOTHING = 1000.0
# shares of the largest cost from which one is as dear, and below which one is nothing beside it
_DEAR, _NEAR = 1e-3, 1e-9
# what the caller is told; who calls reg by another name tells it otherwise
UNRESOLVED = (
    "reg must be at least {least:.3g} for {dtype} to resolve cost / reg, got {reg:.3g}: "
    "raise it, subtract a constant from the cost, or forbid outlying pairs by inf"
)


class Unresolved(ValueError):
    """Says that reg is so small that rounding the exponents would decide a plan."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self._facts = facts

    def worded(self, otherwise: str) -> ValueError:
        """Return the same in the words of a caller who calls reg otherwise."""
        return ValueError(otherwise.format(**self._facts) + self._facts["also"])


def regularisation(reg: Any, batch: torch.Size, values: bool, like: Tensor) -> tuple[Tensor, Any]:
    """Return one regularisation per problem, (B,), and the number that was given, if it was one.

    Args:
        reg: What was given; None is a regularisation of zero.
        batch: Leading dimensions of the problems.
        values: Whether to look at the numbers.
        like: A tensor of the device and dtype to return.
    """
    if reg is None:
        return like.new_zeros(batch.numel()), 0.0
    if isinstance(reg, Tensor):
        reg = checks.present("reg", checks.constant("reg", checks.plain("reg", reg)))
    if not isinstance(reg, (Tensor, np.ndarray, list, tuple)) or getattr(reg, "ndim", 1) == 0:
        reg = checks.positive("reg", reg)
        return checks.full((batch.numel(),), reg, like.dtype, like.device), reg
    t = checks.tensor("reg", reg, whole=True).to(like.device, torch.float64)
    if values and not bool(((t > 0) & (t < math.inf)).all()):
        checks.refuse("reg", "be finite and above zero", t, ~((t > 0) & (t < math.inf)))
    try:
        return t.expand(batch).reshape(-1).to(like.dtype), None
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
    reg, least = p.least_reg, finest(p)
    if reg < least:
        also, ends = _dear_alone(p), {"most": 1 / least, "inverse": 1 / reg}
        facts = {"least": least, "reg": reg, "dtype": p.work, **ends}
        raise Unresolved(otherwise.format(**facts) + also, also=also, **facts)
    return p


def finest(p: Problem) -> float:
    """Return the least reg at which exponents have enough digits; exact transport has none."""
    reg = p.least_reg
    # what is taken off has been rounded with the rest
    return max(torch.finfo(p.work).tiny, p.rounding() / _RESOLUTION * reg) if reg else 0.0


def without_far(p: Problem) -> Problem:
    """Return the problem less what makes it unresolved, if that is pairs that no plan could use.

    People write "forbidden" as 1e20. Along a path of nearer pairs potentials differ by their costs
    and some hundred reg a step, and paths have no more steps than there are points: what costs more
    than that carries nothing, but where the nearer pairs leave no plan.
    """
    reg = p.least_reg
    # other penalties set other prices on what is far
    if not isinstance(p.cost, Dense) or p.penalised:
        return p
    costs = p.cost.whole.double().flatten()
    costs = costs[costs < math.inf].sort().values
    soft = sum(rho for rho in p.relax if rho < math.inf)
    room = sum(p.shape[1:]) * (costs - costs[0] + _NOTHING * (float(p.reg.max()) + soft))
    # from the dearest down, so that the fewest are forbidden
    for k in (costs[1:] - costs[0] > room[:-1]).nonzero()[:, 0].flip(0).tolist():
        far = float(costs[k])
        nearer = replace(p, bounds=Bounds(p.bounds.low, far, True), far=far)
        if reg >= finest(nearer):
            C = p.cost.whole
            nearer = replace(nearer, cost=Dense(C.masked_fill(far < C, math.inf)))
            return nearer if _all_have_partners(nearer) else p
    return p


def _dear_alone(p: Problem) -> str:
    """Return which row or column has costs that are far from the others', in words, if one has."""
    if not isinstance(p.cost, Dense):
        return ""
    C = p.cost.whole.double()
    finite = math.inf > C
    size = max(abs(p.bounds.low), abs(p.bounds.high))
    for kind, axis in (("row", -1), ("column", -2)):
        least = C.masked_fill(~finite, math.inf).abs().amin(axis)
        dear, near = (least > size * _DEAR) & (least < math.inf), least < size * _NEAR
        if bool(dear.any() & near.any() & (dear | near | (least == math.inf)).all()):
            *_, i = checks.first_index(dear)
            return f"; {kind} {i} has none but such costs: subtract a constant from them"
    return ""


def _all_have_partners(p: Problem) -> bool:
    """Say whether each point with weight of an exact side has an allowed one with weight."""
    rows, columns = p.a > 0, p.b > 0
    used = (math.inf > p.cost.rows(0, p.shape[1])) & rows[:, :, None] & columns[:, None, :]
    sides = zip((rows, columns), (-1, -2), p.relax, strict=True)
    return all(
        rho < math.inf or bool((used.any(axis) | ~weighs).all()) for weighs, axis, rho in sides
    )
