"""What a penalty is: a step of the potential, a value of the marginal, and a dual of both."""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks
from sinkhorn_ot.problem.rows import Index


P = TypeVar("P", bound="Penalty")


@dataclass(frozen=True, eq=False)
class Penalty:
    """What one marginal p of a plan costs beside its weights w: F(p), convex.

    A caller gives numbers or tensors (..., n); a problem holds tensors (B, n). A new penalty is a
    subclass with the methods below.

    Source of the steps: L. Chizat, G. Peyre, B. Schmitzer, F.-X. Vialard, Scaling algorithms for
    unbalanced optimal transport problems, Math. Comp. 2018, equation 3.9 and table 1.
    """

    def answer(self, log_sum: Tensor, weight: Tensor, reg: Tensor) -> Tensor:
        """Return the potential over reg that answers the other side: its proximal step, (B, n).

        It maximises -F*(-f) - reg w exp(f / reg + log_sum) over f.

        Args:
            log_sum: Logarithm of what the other side offers per weight, (B, n): at the potential f
                the marginal is w exp(f / reg + log_sum).
            weight: Weights w, (B, n).
            reg: Regularisation, (B, 1).
        """
        raise NotImplementedError

    def value(self, mass: Tensor, weight: Tensor) -> Tensor:
        """Return F of the marginal `mass`, (B,); a bound that is missed by rounding costs none."""
        raise NotImplementedError

    def dual(self, potential: Tensor, weight: Tensor) -> Tensor:
        """Return -F*(-f) at potentials in units of the cost that `nearest` has passed, (B,)."""
        raise NotImplementedError

    def wanted(self, potential: Tensor, weight: Tensor) -> Tensor:
        """Return the marginal whose price is the potential, (..., B, n); either one at a corner.

        It is a subgradient of the dual, and falls where the potential rises.
        """
        raise NotImplementedError

    def nearest(self, potential: Tensor) -> Tensor:
        """Return the nearest potentials, (B, n), at which the dual is above -inf."""
        return potential

    def extent(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least and the largest total that the marginal may have, (B,)."""
        zero = torch.zeros_like(weight[:, 0])
        return zero, torch.full_like(zero, torch.inf)

    def fitted(self: P, weight: Tensor, least: Tensor, most: Tensor) -> P:
        """Return the penalty, changed by rounding so that totals within (B,) and (B,) are allowed.

        Two totals that must agree differ in their last digits, which no plan could make good.
        """
        return self

    def rests(self) -> Tensor:
        """Say which points may carry nothing, (B, n)."""
        raise NotImplementedError

    def closed(self) -> Tensor | None:
        """Say which points must carry nothing, (B, n); None if the kind has none."""
        return None

    def flat(
        self: P, weight: Tensor, batch: torch.Size, values: bool, there: Tensor | None = None
    ) -> P:
        """Return the penalty of a flat batch, its numbers checked.

        Args:
            weight: Weights (B, n), of the dtype and device to be had.
            batch: Leading dimensions of the caller.
            values: Whether to look at the numbers of tensors too.
            there: Which points are, (B, n): what others are given is not read; None if all are.
        """
        parts = {}
        for field in fields(self):
            name, given = f"{field.name} of {type(self).__name__}", getattr(self, field.name)
            least = self._missing(field.name) if given is None else given
            held = None if there is None else (there, self._idle(field.name))
            parts[field.name] = per_point(name, least, weight, batch, values, there=held)
        return replace(self, **parts)

    def _idle(self, name: str) -> float:
        """Return what asks nothing of a point without weight."""
        return 0.0

    def _missing(self, name: str) -> float:
        """Return what None stands for."""
        raise ValueError(f"{name} of {type(self).__name__} must be given, got None")

    def select(self: P, at: Index | tuple[Index, ...]) -> P:
        """Return the penalty of some problems of the flat batch."""
        return replace(
            self, **{field.name: getattr(self, field.name)[at] for field in fields(self)}
        )


def per_point(
    name: str,
    given: Any,
    weight: Tensor,
    batch: torch.Size,
    values: bool,
    *,
    size: int | None = None,
    there: tuple[Tensor, float] | None = None,
) -> Tensor:
    """Return a number or tensor (..., n) as (B, n), non-negative, inf allowed.

    Where points are not `there` it is the number given with that.
    """
    n = weight.shape[-1] if size is None else size
    t = checks.tensor(
        name, given if isinstance(given, torch.Tensor) else _listed(name, given), whole=True
    )
    if t.device != weight.device and t.ndim == 0:
        t = t.to(weight.device)
    checks.same_device(name, checks.present(name, t), weight.device, "cost")
    try:
        flat = t.to(weight.dtype).expand(*batch, n).reshape(len(weight), n)
    except RuntimeError:
        shape = f"(..., {n}), where leading dimensions are {tuple(batch)}"
        rule, came = f" or have shape {shape}", tuple(t.shape)
        if size is not None:
            many = f", or one per problem, shape {tuple(batch)}"
            rule, came = many if batch else ", for there is one problem", came[:-1]
        raise ValueError(f"{name} must be one number{rule}, got shape {came}") from None
    if there is not None:
        t = flat = torch.where(there[0], flat, there[1])
    if values and not bool((t >= 0).all()):
        checks.refuse(name, "be at least zero", t, ~(t >= 0))
    return flat


def _listed(name: str, given: Any) -> Any:
    """Return what may be an array; one number is checked as such."""
    many = isinstance(given, (list, tuple)) or hasattr(given, "__array__")
    return given if many else torch.tensor(checks.number(name, given), dtype=torch.float64)
