"""Penalties on how far a marginal is from its weights: KL, total variation and squares."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem.rows import ArrayLike
from sinkhorn_ot.problem.show import shown

from .penalty import Penalty


# steps after which Newton's iteration for a logarithm plus an exponential has all digits
_NEWTON = 4


@shown
@dataclass(frozen=True, eq=False, init=False)
class _Divergence(Penalty):
    """Zero at the weights, and larger the farther; 0 leaves a point free, inf keeps it exact.

    Attributes:
        rho: Its strength.
    """

    # what was given, and in a problem a tensor (B, n)
    rho: Any

    def __init__(self, rho: float | ArrayLike) -> None:
        object.__setattr__(self, "rho", rho)

    def rests(self) -> Tensor:
        """Say which points may carry nothing, (B, n)."""
        rho: Tensor = self.rho
        return rho < math.inf

    def _softly(self, potential: Tensor, weight: Tensor, soft: Tensor) -> Tensor:
        """Return a marginal, but the weight at exact points and any mass of a free one's price."""
        free = torch.where(potential < 0, math.inf, 0.0)
        marginal = torch.where(self.rho > 0, soft, free)
        return torch.where(torch.isinf(self.rho), weight, marginal)

    def extent(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least and the largest total that the marginal may have, (B,)."""
        exact = torch.isinf(self.rho) | (weight == 0)
        held = (weight * exact).sum(-1)
        return held, held.masked_fill(~exact.all(-1), math.inf)


@shown
@dataclass(frozen=True, eq=False, init=False)
class KL(_Divergence):
    """A marginal p relaxed by sum rho (p log(p / w) - p + w), for weights w.

    The step is f = -rho / (rho + reg) reg log_sum, and the marginal w exp(-f / rho).

    Args:
        rho: Strength in units of the cost: a number, as plain numbers in `unbalanced` are, or one
            per point (..., n); 0 makes a point a free slack, inf an exact one.
    """

    def __init__(self, rho: float | ArrayLike) -> None:
        super().__init__(rho)

    def answer(self, log_sum: Tensor, weight: Tensor, reg: Tensor) -> Tensor:
        """Return -rho / (rho + reg) log_sum."""
        kappa = 1 / (1 + reg / self.rho)
        return torch.where(kappa > 0, -kappa * log_sum, 0.0)

    def value(self, mass: Tensor, weight: Tensor) -> Tensor:
        """Return sum rho (p log(p / w) - p + w) of what is neither free nor exact."""
        # in terms of the difference, which a large rho would magnify the rounding of
        off = torch.where(weight > 0, mass / weight - 1, 0.0)
        # the logarithm of no mass counts for nothing, and nor does its derivative
        held = torch.where(mass > 0, off, 0.0)
        cost = self.rho * weight * (torch.special.xlog1py(1 + held, held) - off)
        return torch.where(torch.isinf(self.rho), 0.0, cost).sum(-1)

    def dual(self, potential: Tensor, weight: Tensor) -> Tensor:
        """Return sum rho w (1 - exp(-f / rho)), whose limit is `<f, w>`."""
        pull = -self.rho * torch.special.expm1(-potential / self.rho)
        pull = torch.where(torch.isinf(self.rho), potential, pull)
        # a point without weight may have a price whose pull is inf
        return (weight * torch.where((self.rho > 0) & pull.isfinite(), pull, 0.0)).sum(-1)

    def wanted(self, potential: Tensor, weight: Tensor) -> Tensor:
        """Return w exp(-f / rho)."""
        return self._softly(potential, weight, weight * (-potential / self.rho).exp())

    def nearest(self, potential: Tensor) -> Tensor:
        """Return zero at free points."""
        return torch.where(self.rho > 0, potential, 0.0)


@shown
@dataclass(frozen=True, eq=False, init=False)
class TV(_Divergence):
    """A marginal p relaxed by sum rho |p - w|, for weights w.

    Mass is destroyed or made at the price rho, so that nothing is moved that costs more than what
    both sides pay. The step is that of exact marginals with the potential held in [-rho, rho].

    Args:
        rho: Price in units of the cost: a number, or one per point (..., n); 0 leaves a point free,
            inf keeps it exact.
    """

    def __init__(self, rho: float | ArrayLike) -> None:
        super().__init__(rho)

    def answer(self, log_sum: Tensor, weight: Tensor, reg: Tensor) -> Tensor:
        """Return -log_sum held within the price."""
        most = self.rho / reg
        return torch.clamp(-log_sum, -most, most)

    def value(self, mass: Tensor, weight: Tensor) -> Tensor:
        """Return sum rho |p - w| of what is not exact."""
        return torch.where(torch.isinf(self.rho), 0.0, self.rho * (mass - weight).abs()).sum(-1)

    def dual(self, potential: Tensor, weight: Tensor) -> Tensor:
        """Return sum min(f, rho) w."""
        return (torch.minimum(potential, self.rho) * weight).sum(-1)

    def wanted(self, potential: Tensor, weight: Tensor) -> Tensor:
        """Return w within the price, nothing above it, and all mass there is below."""
        below = torch.where(potential < -self.rho, math.inf, weight)
        return torch.where(potential > self.rho, 0.0, below)

    def nearest(self, potential: Tensor) -> Tensor:
        """Return potentials of at least -rho."""
        return torch.maximum(potential, -self.rho)


@shown
@dataclass(frozen=True, eq=False, init=False)
class L2(_Divergence):
    """A marginal p relaxed by sum rho / 2 (p - w)^2, for weights w.

    That is the "l2" of POT, half of the squared distance. The step solves p = w - f / rho by
    Newton's iteration for Lambert's W, in logarithms.

    Args:
        rho: Strength in units of cost per mass: a number, or one per point (..., n); 0 leaves a
            point free, inf keeps it exact.
    """

    def __init__(self, rho: float | ArrayLike) -> None:
        super().__init__(rho)

    def answer(self, log_sum: Tensor, weight: Tensor, reg: Tensor) -> Tensor:
        """Return f / reg with w exp(f / reg + log_sum) = w - f / rho."""
        stiff = self.rho * weight / reg
        offered = stiff.log() + log_sum
        # y + log y = z for y = stiff exp(f / reg + log_sum)
        z = stiff + offered
        s = torch.where(z > 1, z.clamp(min=1.0).log(), z.clamp(max=0.0))
        for _ in range(_NEWTON):
            # from above a convex function, which no step leaves
            y = s.exp()
            s = s - (y + s - z) / (y + 1)
        phi = torch.where(torch.isinf(self.rho), -log_sum, s - offered)
        return torch.where((self.rho > 0) & (weight > 0), phi, 0.0)

    def value(self, mass: Tensor, weight: Tensor) -> Tensor:
        """Return sum rho / 2 (p - w)^2 of what is not exact."""
        off = self.rho / 2 * (mass - weight).square()
        return torch.where(torch.isinf(self.rho), 0.0, off).sum(-1)

    def dual(self, potential: Tensor, weight: Tensor) -> Tensor:
        """Return sum f w - f^2 / (2 rho), and no more than rho w^2 / 2 of a point."""
        stiff, held = torch.isinf(self.rho), torch.where(self.rho > 0, self.rho, 1.0)
        f = torch.where(stiff, potential, torch.minimum(potential, held * weight))
        pull = f * weight - torch.where(stiff, 0.0, f.square() / (2 * held))
        return torch.where(self.rho > 0, pull, 0.0).sum(-1)

    def wanted(self, potential: Tensor, weight: Tensor) -> Tensor:
        """Return w - f / rho, or nothing."""
        return self._softly(potential, weight, (weight - potential / self.rho).clamp(min=0.0))

    def nearest(self, potential: Tensor) -> Tensor:
        """Return zero at free points."""
        return torch.where(self.rho > 0, potential, 0.0)
