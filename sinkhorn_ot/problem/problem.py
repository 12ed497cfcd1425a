"""The transport problem: validated once, flat, frozen, and without any choice of solver."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import checks
from .cost import Bounds, Cost, as_cost, broadcast
from .rows import number
from .show import shown


# how far two masses may differ by rounding alone, per dtype of the weights
_MASS_RTOL = {
    # such weights often come from float32
    torch.float64: 2e-7,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}

# how many times its spread the least cost must be for it to be taken off: then that is exact
_FAR = 10.0
# total weights whose products float32 holds
_HELD = (1e-18, 1e18)

# how wrong a plan may be only because its exponents are rounded
_RESOLUTION = 0.01

Relax = tuple[float, float]


@shown
@dataclass(frozen=True, eq=False)
class Problem:
    """Move the weights `a` onto the weights `b` at the least total cost, smoothed by `reg`.

    The batch is flat: B problems, whose cost may be one (shared by all) or B.

    Attributes:
        cost: Flat cost, batch (1,) or (B,).
        a: Source weights in the working dtype, shape (B, n).
        b: Target weights in the working dtype, shape (B, m).
        reg: Entropic regularisation in units of the cost, shape (B,); 0 means exact transport.
        relax: KL penalty on each marginal; inf keeps it exact, 0 leaves it free.
        batch_shape: Leading dimensions of the caller.
        dtype: What the caller is given back: float64 or float32.
        bounds: Where the entries of the cost lie; unknown bounds are infinite.
        shift: What is taken off every cost before it is scaled: scaled potentials answer the rest.
    """

    cost: Cost
    a: Tensor
    b: Tensor
    reg: Tensor
    relax: Relax
    batch_shape: torch.Size
    dtype: torch.dtype
    bounds: Bounds
    shift: float = 0.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of problems, of source points and of target points."""
        return self.a.shape[0], *self.cost.shape

    @property
    def shared(self) -> bool:
        """Whether several problems share one cost."""
        return self.cost.batch_shape[0] < self.a.shape[0]

    @property
    def work(self) -> torch.dtype:
        """Dtype of weights and potentials inside."""
        return self.a.dtype

    @cached_property
    def resolution(self) -> float:
        """Relative error of the plan that rounding cost / reg makes."""
        return _rounding(self, self.shift)

    def select(self, index: Tensor) -> "Problem":
        """Return the problems at `index` of the flat batch."""
        cost = self.cost if self.shared else self.cost.select(index)
        return replace(self, cost=cost, a=self.a[index], b=self.b[index], reg=self.reg[index])

    def transposed(self) -> "Problem":
        """Return the problem of moving `b` onto `a`."""
        relax = self.relax[1], self.relax[0]
        return replace(self, cost=self.cost.transposed(), a=self.b, b=self.a, relax=relax)

    def at(self, reg: Tensor) -> "Problem":
        """Return the same problem at another regularisation."""
        return replace(self, reg=reg)


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
    a, b = _weights("a", a, n, cost, values), _weights("b", b, m, cost, values)
    batch = broadcast("cost", cost.batch_shape, "a", a.shape[:-1])
    batch = broadcast("cost and a", batch, "b", b.shape[:-1])
    dtype = torch.float64 if cost.dtype == torch.float64 else torch.float32
    work = torch.float64 if cost.device.type == "cpu" else dtype
    rtol = max(_MASS_RTOL[a.dtype], _MASS_RTOL[b.dtype])
    # copies: who changes weights in place later must not change a result
    a = a.to(work, copy=True).expand(*batch, n).reshape(-1, n)
    b = b.to(work, copy=True).expand(*batch, m).reshape(-1, m)
    if dtype == torch.float32 and values:
        _held("a", a)
        _held("b", b)
    if relax == (math.inf, math.inf):
        b = _equal_mass(a, b, rtol if values else math.inf)
    bounds = cost.validate() if values else Bounds(-math.inf, math.inf)
    reg = _regularisation(reg, batch, cost.device, values).reshape(-1).to(work)
    p = Problem(cost.flat(batch), a, b, reg, relax, batch, dtype, bounds)
    p = replace(p, shift=_shift(p))
    if values:
        _resolved(p)
    if bounds.forbids:
        _reachable(p)
    return p


def relaxation(unbalanced: Any) -> Relax:
    """Return the KL penalty of each marginal; inf is an exact one."""
    if isinstance(unbalanced, np.ndarray):
        unbalanced = unbalanced.tolist()
    pair = unbalanced if isinstance(unbalanced, (tuple, list)) else (unbalanced, unbalanced)
    if len(pair) != 2:
        raise ValueError(f"unbalanced must be one penalty or two, got {unbalanced!r}")
    first, second = (math.inf if rho is None else checks.number("unbalanced", rho) for rho in pair)
    for rho in (first, second):
        if not rho >= 0:
            raise ValueError(f"unbalanced must be at least zero, or None for exact, got {rho!r}")
    return first, second


def _weights(name: str, w: Any, size: int, cost: Cost, values: bool) -> Tensor:
    if w is None:
        return torch.full((size,), 1.0 / size, dtype=torch.float64, device=cost.device)
    t = checks.at_least_dims(name, checks.tensor(name, w), 1, f"(..., {size})")
    checks.same_device(name, t, cost.device, "cost")
    if t.shape[-1] != size:
        raise ValueError(
            f"{name} must have shape (..., {size}) to fit a cost of {tuple(cost.shape)}, "
            f"got {tuple(t.shape)}"
        )
    return checks.weights(name, t) if values else t


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


def _held(name: str, w: Tensor) -> None:
    """Require masses whose squares, of which values are made, are float32 numbers."""
    low, high = (float(x) for x in torch.aminmax(w.sum(-1)))
    if not (_HELD[0] <= low and high <= _HELD[1]):
        mass = low if low < _HELD[0] else high
        raise ValueError(
            f"{name} must have a total weight from {_HELD[0]:g} to {_HELD[1]:g} for an answer in "
            f"float32, got {mass:.3g}: normalise it, or give the cost in float64"
        )


def _equal_mass(a: Tensor, b: Tensor, rtol: float) -> Tensor:
    """Require one total mass; return `b` scaled to match to the last digit."""
    mass_a, mass_b = a.sum(-1), b.sum(-1)
    ratio = mass_a / mass_b
    if rtol < math.inf and max(abs(float(r) - 1) for r in torch.aminmax(ratio)) > rtol:
        k = checks.first_index((ratio - 1).abs() > rtol)
        where = f" in problem {k[0]}" if a.shape[0] > 1 else ""
        raise ValueError(
            f"a and b must have the same total mass, got {float(mass_a[k]):.9g} and "
            f"{float(mass_b[k]):.9g}{where}: normalise them, or relax a marginal (unbalanced=)"
        )
    return b * ratio[:, None]


def _rounding(p: Problem, shift: float = 0.0) -> float:
    largest = max(abs(bound - shift) for bound in (p.bounds.low, p.bounds.high))
    return torch.finfo(p.work).eps * largest / float(p.reg.min())


def _shift(p: Problem) -> float:
    """Return the least cost, where it is so large that it would take digits from the others.

    With penalties the level of the potentials counts, and kernels of an accelerator take none off.
    """
    low, high, _ = p.bounds
    far = math.isfinite(low) and abs(low) > _FAR * (high - low)
    exact = p.relax == (math.inf, math.inf) and p.a.device.type == "cpu"
    return low if far and exact else 0.0


def _resolved(p: Problem) -> None:
    """Raise if reg is so small that rounding the exponents would decide the plan."""
    reg = float(p.reg.min())
    # exact transport has none
    if reg == 0:
        return
    # what is taken off has been rounded with the rest
    least = max(torch.finfo(p.work).tiny, _rounding(p) / _RESOLUTION * reg)
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
