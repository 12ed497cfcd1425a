"""What `sinkhorn_divergence` returns: the divergence, its potentials, and the three transports."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import shown
from sinkhorn_ot.results import ConvergenceError, Result, Status, Transport, uncompiled, worst


# what the three problems are called
_NAMES = ("OT(a, b)", "OT(a, a)", "OT(b, b)")


@shown
@dataclass(frozen=True, eq=False)
class Divergence(Result):
    """The Sinkhorn divergence of two measures, or of a batch of pairs.

    Tensors have the leading dimensions of the pairs, the caller's device, and float64 or float32.
    Numbers are functions of points, weights, reg and penalty, where these require grad.

    Attributes:
        between: The transport of a onto b.
        within: The transports of a and of b onto themselves, each once for all who share it.
        weights: The weights a and b as they were given.
        reg: The regularisation as it was given.
        bounded: Whether the divergence is known to be never negative.
    """

    between: Transport
    within: tuple[Transport, ...]
    weights: tuple[Any, Any]
    reg: Any
    bounded: bool

    _tells = ("value", "f", "g", "converged", "statuses", "status")
    _instead = ": plot one of its transports, r.between or those in r.within"

    def __getstate__(self) -> dict[str, Any]:
        # copies hold constants, as those of transports do
        return {**self.__dict__, **self.detach().__dict__}

    @property
    @uncompiled
    def value(self) -> Tensor:
        """The divergence, (...), in units of cost times mass.

        It is made of dual values, which miss the optimum by the square of what potentials miss, in
        float64 on a CPU whatever the input. What rounding leaves below zero, where nothing can be,
        is told as zero and keeps its derivatives.
        """
        between, *within = self._wide
        with self._exactly:
            value = between.dual_value - sum(t.dual_value for t in within) / 2 + self._mass_apart
            value = value - value.detach().clamp(max=0) if self.bounded else value
        return self._out(value)

    @property
    @uncompiled
    def f(self) -> Tensor:
        """Source potential of the divergence, (..., n), in units of the cost: f_ab - f_aa.

        With exact marginals `value` is `<a, f> + <b, g>`, half of it each, and f is its derivative
        by the weights a, up to a constant.
        """
        return self._out(self._potentials[0])

    @property
    @uncompiled
    def g(self) -> Tensor:
        """Target potential of the divergence, (..., m): g_ab - g_bb."""
        return self._out(self._potentials[1])

    @property
    def _potentials(self) -> tuple[Tensor, Tensor]:
        between, *within = self._wide
        # both sides of a symmetric problem have one potential, but for a constant
        f_a, g_b = ((t.f + t.g) / 2 for t in within)
        f, g = between.f - f_a, between.g - g_b
        if not between.problem.exact:
            return f, g
        a, b = self._masses
        apart = (a * f).sum(-1, keepdim=True) - (b * g).sum(-1, keepdim=True)
        half = apart / (a.sum(-1, keepdim=True) + b.sum(-1, keepdim=True))
        p = between.problem
        return p.blank(f - half, 0), p.blank(g + half, 1)

    @property
    def _masses(self) -> tuple[Tensor, ...]:
        """The weights in float64, as functions where they require grad."""
        like = self.between.problem.a
        return tuple(
            like.new_full((n,), 1 / n, dtype=torch.float64)
            if w is None
            else torch.as_tensor(w, dtype=torch.float64, device=like.device)
            for w, n in zip(self.weights, self.between.problem.shape[1:], strict=True)
        )

    @property
    def _mass_apart(self) -> Tensor | float:
        """What masses that differ add: reg / 2 (m_a - m_b)^2."""
        if self.between.problem.exact:
            return 0.0
        a, b = self._masses
        reg = torch.as_tensor(self.reg, dtype=torch.float64, device=a.device)
        return reg / 2 * (a.sum(-1) - b.sum(-1)).square()

    @cached_property
    def _wide(self) -> list[Transport]:
        """The transports, telling float64: their differences need the digits."""
        return [
            replace(t, problem=replace(t.problem, dtype=torch.float64))
            for t in (self.between, *self.within)
        ]

    @property
    def _exactly(self) -> torch.autocast:
        return torch.autocast(self.between.problem.a.device.type, enabled=False)

    def _out(self, t: Tensor) -> Tensor:
        return t.to(self.between.problem.dtype)

    @property
    def converged(self) -> Tensor:
        """Whether all three problems were measured to be within tolerance, (...), bool."""
        good = self.between.converged
        for t in self.within:
            good = good & t.converged
        return good

    @property
    def statuses(self) -> list[Status]:
        """How the three problems ended; of a batch, the worst."""
        return [t.status for t in (self.between, *self.within)]

    @property
    def status(self) -> Status:
        """How it ended: the worst of all."""
        return worst(self.statuses)

    @property
    def message(self) -> str:
        """One sentence on how it ended, and which problem did not get there."""
        told = zip(_NAMES, (self.between, *self.within), strict=True)
        bad = [f"{name}: {t.message}" for name, t in told if t.status is self.status]
        return self.between.message if self.status is Status.CONVERGED else " ".join(bad)

    @property
    def _batch(self) -> torch.Size:
        return self.between.problem.batch_shape

    def _picked(self, at: Tensor) -> "Divergence":
        """Return some pairs; what a measure costs by itself is there once for all who share it."""

        def own(shape: torch.Size) -> Tensor:
            numbers = torch.arange(shape.numel()).view(shape)
            return numbers.expand(self._batch).reshape(-1)[at]

        def one(x: Any, behind: int) -> Any:
            if x is None or (lead := np.ndim(x) - behind) == 0:
                return x
            t = torch.as_tensor(x)
            return t.flatten(0, lead - 1)[own(t.shape[:lead]).to(t.device)]

        return replace(
            self,
            between=self.between._picked(at),
            within=tuple(t._picked(own(t.problem.batch_shape)) for t in self.within),
            weights=(one(self.weights[0], 1), one(self.weights[1], 1)),
            reg=one(self.reg, 0),
        )

    def check(self) -> "Divergence":
        """Return self, or raise `ConvergenceError` if some problem was not solved to tolerance."""
        if not bool(self.converged.all()):
            raise ConvergenceError(self.message, self)
        return self

    def detach(self) -> "Divergence":
        """Return the same result with all its numbers constants."""
        still = [w.detach() if isinstance(w, Tensor) else w for w in (*self.weights, self.reg)]
        within = tuple(t.detach() for t in self.within)
        return replace(
            self,
            between=self.between.detach(),
            within=within,
            weights=(still[0], still[1]),
            reg=still[2],
        )
