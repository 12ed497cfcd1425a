"""Penalties that are bounds: a marginal between two masses, and a side that gives a stated mass."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks
from sinkhorn_ot.problem.rows import ArrayLike
from sinkhorn_ot.problem.show import in_short, shown

from .penalty import Penalty, per_point


@shown
@dataclass(frozen=True, eq=False, init=False)
class Between(Penalty):
    """A marginal held between two masses per point: no empty cluster, none above its capacity.

    The weights only say what is more likely, by KL(P | a b^T); masses within the bounds cost
    nothing. The step leaves the potential at zero where the mass that follows is within them, and
    else meets the nearest one.

    Args:
        low: Least mass, absolute: a number or one per point (..., n); None for none.
        high: Largest mass likewise; None for none.
    """

    # what was given, and in a problem tensors (B, n)
    low: Any
    high: Any

    def __init__(
        self, low: float | ArrayLike | None = None, high: float | ArrayLike | None = None
    ) -> None:
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def answer(self, log_sum: Tensor, weight: Tensor, reg: Tensor) -> Tensor:
        """Return what brings w exp(log_sum) to the nearest bound."""
        free = weight.log() + log_sum
        phi = torch.clamp(free, self.low.log(), self.high.log()) - free
        # a point without weight or partner has no price
        return torch.where(free == -math.inf, 0.0, phi)

    def value(self, mass: Tensor, weight: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros_like(mass[:, 0])

    def dual(self, potential: Tensor, weight: Tensor) -> Tensor:
        """Return what the bounds take of mass at the price f: low where it is dear, else high."""
        most = torch.where(potential < 0, self.high, 0.0)
        at = torch.where(potential > 0, self.low, most)
        return torch.where((potential != 0) & (weight > 0), potential * at, 0.0).sum(-1)

    def wanted(self, potential: Tensor, weight: Tensor) -> Tensor:
        """Return the largest mass where it is cheaper than free, else the least."""
        return torch.where(potential < 0, self.high, self.low)

    def nearest(self, potential: Tensor) -> Tensor:
        """Return potentials that are at least zero where there is no upper bound."""
        return torch.where(torch.isinf(self.high), potential.clamp(min=0.0), potential)

    def extent(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the totals of both bounds."""
        there = weight > 0
        low, high = (torch.where(there, side, 0.0).sum(-1) for side in (self.low, self.high))
        return low, high

    def fitted(self, weight: Tensor, least: Tensor, most: Tensor) -> "Between":
        """Return bounds whose totals leave room for one of the other side."""
        low, high = self.extent(weight)
        down, up = (
            torch.where(low > most, most / low, 1.0),
            torch.where(high < least, least / high, 1.0),
        )
        return Between(self.low * down[:, None], self.high * up[:, None])

    def rests(self) -> Tensor:
        """Say which points may carry nothing, (B, n)."""
        low: Tensor = self.low
        return low == 0

    def closed(self) -> Tensor | None:
        """Say which points must carry nothing, (B, n)."""
        high: Tensor = self.high
        return high == 0

    def flat(
        self, weight: Tensor, batch: torch.Size, values: bool, there: Tensor | None = None
    ) -> "Between":
        """Return the bounds of a flat batch, checked."""
        held = super().flat(weight, batch, values, there)
        if values:
            crossed, idle = held.low > held.high, (held.low > 0) & (weight == 0)
            if bool(torch.isinf(held.low).any()):
                raise ValueError("low of Between must be finite, got inf")
            if bool(crossed.any()):
                k = checks.first_index(crossed)
                low, high, at = float(held.low[k]), float(held.high[k]), k[-1]
                raise ValueError(
                    f"low of Between must be at most high, got {low:.6g} above {high:.6g} at "
                    f"point {at}"
                )
            if bool(idle.any()):
                at = checks.first_index(idle)[-1]
                raise ValueError(
                    f"low of Between must be zero where there is no weight, got a bound on point "
                    f"{at}, whose weight is zero: a plan is relative to its weights"
                )
        return held

    def _missing(self, name: str) -> float:
        return 0.0 if name == "low" else math.inf

    def _idle(self, name: str) -> float:
        return self._missing(name)


@shown
@dataclass(frozen=True, eq=False)
class Moved(Penalty):
    """A side that gives a stated mass in all, and of each point at most its weight.

    The step finds capped potentials and the one multiplier of the mass together, exactly.

    Args:
        mass: What is moved, one number per problem.
    """

    mass: Any

    def answer(self, log_sum: Tensor, weight: Tensor, reg: Tensor) -> Tensor:
        """Return min(mu, -log_sum), with mu such that w min(exp(mu + log_sum), 1) adds up.

        The mass that exp(mu) =: t gives is the least of the lines full + t shared, one for each
        number of points, those of the smallest sums, that share what the others, which are full,
        leave. So the t of a mass is the largest that any of them says.
        """
        sums, order = log_sum.sort(-1)
        w = weight.gather(-1, order)
        # a point without weight or partner has nothing to share
        shared = torch.logcumsumexp(w.log() + sums, -1).clamp(min=torch.finfo(w.dtype).min)
        left = w.cumsum(-1) + (self.mass - weight.sum(-1, keepdim=True))
        mu = (left.clamp(min=0.0).log() - shared).amax(-1, keepdim=True)
        return torch.minimum(mu, -log_sum)

    def value(self, mass: Tensor, weight: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros_like(mass[:, 0])

    def dual(self, potential: Tensor, weight: Tensor) -> Tensor:
        """Return the least <f, p> of what may be given: by the cheapest points."""
        order = potential.argsort(-1)
        w = weight.gather(-1, order)
        before = w.cumsum(-1) - w
        given = torch.minimum((self.mass - before).clamp(min=0.0), w)
        return (given * potential.gather(-1, order)).sum(-1)

    def extent(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mass, of which there may be less by rounding."""
        mass = torch.minimum(self.mass[:, 0], weight.sum(-1))
        return mass, mass

    def fitted(self, weight: Tensor, least: Tensor, most: Tensor) -> "Moved":
        """Return no more than the other side has."""
        return Moved(torch.minimum(self.mass, most[:, None]))

    def rests(self) -> Tensor:
        """Say that every point may carry nothing."""
        return torch.ones_like(self.mass, dtype=torch.bool)

    def flat(
        self, weight: Tensor, batch: torch.Size, values: bool, there: Tensor | None = None
    ) -> "Moved":
        """Return the masses of a flat batch, (B, 1)."""
        given = self.mass
        if isinstance(given, Tensor) and given.ndim:
            given = given[..., None]
        elif hasattr(given, "__array__") or isinstance(given, (list, tuple)):
            given = checks.tensor("mass", given, whole=True)[..., None]
        mass = per_point("mass", given, weight, batch, False, size=1)
        if values and not bool((mass > 0).all() & (mass < math.inf).all()):
            each = mass.view(batch)
            bad = ~((each > 0) & (each < math.inf))
            checks.refuse("mass", "be finite and above zero", each, bad)
        return Moved(mass)

    def asked(self) -> str:
        """Return what a caller wrote."""
        one = f"{float(self.mass):.6g}" if self.mass.numel() == 1 else in_short(self.mass[:, 0])
        return f"mass={one}"
