"""What `barycenter` returns: the histogram, its transports, values, and how far to trust them."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.gradients import differentiable
from sinkhorn_ot.problem import Cost, Dense, PointCloud, shown
from sinkhorn_ot.results import (
    ConvergenceError,
    Leaves,
    Result,
    Status,
    Transport,
    after,
    attached,
    final,
    in_words,
    uncompiled,
    worst,
)
from sinkhorn_ot.solve import solve

from .derivatives import pulled, refuse


@shown
@dataclass(frozen=True, eq=False)
class Asked:
    """What a barycentre was asked of, as it was given, in its graph.

    Attributes:
        cost: The cost.
        a: Histograms of one mass, (..., k, n).
        w: Their weights, (..., k), that sum to one.
        reg: The regularisation, one number or (..., 1).
        debiased: Whether its bias was taken off.
        leaves: What of the first requires grad, None if nothing does.
    """

    cost: Cost
    a: Tensor
    w: Tensor
    reg: Any
    debiased: bool
    leaves: Leaves | None

    def detach(self) -> "Asked":
        """Return the same with constants."""
        cost: Any = self.cost
        if isinstance(cost, PointCloud):
            cost = replace(cost, x=cost.x.detach(), y=cost.y.detach())
        elif isinstance(cost, Dense):
            cost = Dense(cost.C.detach())
        reg = self.reg.detach() if isinstance(self.reg, Tensor) else self.reg
        return Asked(cost, self.a.detach(), self.w.detach(), reg, self.debiased, None)

    @property
    def waits(self) -> dict[str, Tensor]:
        """What requires grad, by its name."""
        given = {} if self.leaves is None else dict(self.leaves.given)
        return given | ({"w": self.w} if self.w.requires_grad else {})


@shown
@dataclass(frozen=True, eq=False)
class Barycenter(Result, parts=(Asked,)):
    """The histogram that is nearest to several, or a batch of such.

    Tensors have the batch's leading dimensions, the caller's device, and float64 or float32.

    Attributes:
        transport: The transports of all histograms onto it, a batch (..., k), whose plans,
            potentials and products are constants.
        asked: What it was asked of.
        statuses: How each barycentre of the flat batch ended.
        sweeps: Sweeps that each took, (G,).
        measured: The error that each reached, (G,).
    """

    transport: Transport
    asked: Asked
    statuses: list[Status]
    sweeps: Tensor
    measured: Tensor

    _tells = (
        *("histogram", "value", "values", "f", "g", "marginal_error", "converged", "n_iter"),
        *("statuses", "status"),
    )
    _instead = ": plot one of its transports, r.transport[k]"

    def __getstate__(self) -> dict[str, Any]:
        # copies hold constants, as those of transports do
        return {**self.__dict__, "asked": self.asked.detach()}

    @property
    @uncompiled
    def histogram(self) -> Tensor:
        """The barycentre, (..., m), of the mass of its histograms.

        It has derivatives by histograms and weights, by one linear system.
        """
        q, waits = self._q, self.asked.waits
        if not waits or not torch.is_grad_enabled():
            return self._out(q)

        def pull(by: Tensor) -> tuple[Tensor | None, ...]:
            parts = pulled(self.transport, self.asked, by)
            return final("histogram", tuple(parts[name] for name in waits), *waits.values())

        return self._out(attached(pull, q, *waits.values()))

    @property
    @uncompiled
    def value(self) -> Tensor:
        """What is least at the barycentre, (...): the weighted sum of `values`.

        Debiased it is a weighted sum of Sinkhorn divergences.
        """
        return (self.asked.w.to(self.values.dtype) * self.values).sum(-1)

    @property
    @uncompiled
    def values(self) -> Tensor:
        """What each histogram is off, (..., k): `<P, C> + reg sum P log(P / a)`, or a divergence.

        Their derivatives are with the barycentre held: those of `value` are right, for there it is
        least.
        """
        asked, told = self._live
        between = differentiable(self.transport, asked.leaves).value if asked.leaves else told
        return (between + self._own(asked)).to(self.transport.problem.dtype)

    @property
    def _live(self) -> tuple[Asked, Tensor]:
        asked = self.asked if torch.is_grad_enabled() else self.asked.detach()
        return asked, self.transport.value

    def _own(self, asked: Asked) -> Tensor:
        """Return what is added to the transports of all histograms, (..., k)."""
        p = self.transport.problem
        q = self._q.view(*p.batch_shape[:-1], 1, p.shape[2])
        if not asked.debiased:
            mass = q.sum(-1)
            reg = torch.as_tensor(asked.reg, dtype=q.dtype, device=q.device)
            level = torch.special.xlogy(q, q).sum(-1) + mass - mass * mass
            more: Tensor = (reg * level).to(p.dtype)
            return more
        how: dict[str, Any] = {"reg": asked.reg, "on_fail": "ignore"}
        if p.dtype == torch.float64:
            how["tol"] = 1e-12
        within: Tensor = solve(asked.cost, asked.a, asked.a, **how).value
        beside: Tensor = solve(asked.cost, q, q, **how).value
        own: Tensor = -(within + beside) / 2
        return own

    @property
    def plans(self) -> Tensor:
        """The plan from each histogram, (..., k, n, m)."""
        return self._constant("plans", self.transport.plan)

    @property
    def f(self) -> Tensor:
        """Potential of each histogram in units of the cost, (..., k, n)."""
        return self._constant("f", self.transport.f)

    @property
    def g(self) -> Tensor:
        """Potential of the barycentre towards each histogram, (..., k, m)."""
        return self._constant("g", self.transport.g)

    @property
    def marginal_error(self) -> Tensor:
        """L1 distance of column sums from the barycentre, relative to its mass, at most, (...)."""
        return self._out(self.measured)

    @property
    def converged(self) -> Tensor:
        """Whether each barycentre was measured to be within its tolerance, (...), bool."""
        good = [s is Status.CONVERGED for s in self.statuses]
        return self._out(torch.tensor(good, dtype=torch.bool, device=self.measured.device))

    @property
    def status(self) -> Status:
        """How it ended; of a batch, the worst."""
        return worst(self.statuses)

    @property
    def n_iter(self) -> Tensor:
        """Sweeps each barycentre took, (...), int64."""
        return self._out(self.sweeps)

    @property
    def message(self) -> str:
        """How it ended, with the error it reached; of a batch, how many did and the worst."""
        bad, reached = [k for k, s in enumerate(self.statuses) if s is self.status], ""
        if bad:
            k = max(bad, key=lambda k: float(self.measured[k]))
            reached = after(float(self.measured[k]), int(self.sweeps[k]))
        return in_words(self.statuses, reached=reached, kind="barycentres")

    def check(self) -> "Barycenter":
        """Return self, or raise `ConvergenceError` if one was not found to tolerance."""
        if not bool(self.converged.all()):
            raise ConvergenceError(self.message, self)
        return self

    def detach(self) -> "Barycenter":
        """Return the same result with all its numbers constants."""
        return replace(self, asked=self.asked.detach())

    @property
    def _batch(self) -> torch.Size:
        return self.transport.problem.batch_shape[:-1]

    def _picked(self, at: Tensor) -> "Barycenter":
        asked, lead, k = self.asked, self._batch, self.asked.w.shape[-1]
        if asked.waits and torch.is_grad_enabled():
            raise ValueError(
                "k must not pick from a barycentre where an argument requires grad: pick from "
                ".detach(), or from the numbers themselves"
            )
        still, index = asked.detach(), at.to(asked.a.device)

        def own(t: Any, behind: int) -> Any:
            if not isinstance(t, Tensor) or t.ndim <= behind:
                return t
            whole = t.expand(*lead, *t.shape[t.ndim - behind :])
            return whole.flatten(0, len(lead) - 1)[index]

        each = torch.arange(lead.numel() * k).view(-1, k)
        return Barycenter(
            self.transport._picked(each[at]),
            replace(still, a=own(still.a, 2), w=own(still.w, 1), reg=own(still.reg, 1)),
            [self.statuses[i] for i in at.flatten().tolist()],
            self.sweeps[index.flatten()],
            self.measured[index.flatten()],
        )

    @cached_property
    def _q(self) -> Tensor:
        """The barycentres, (G, m)."""
        return self.transport.problem.b[:: self.asked.w.shape[-1]]

    def _constant(self, what: str, t: Tensor) -> Tensor:
        """Return a number of which whoever asks for its derivatives is told that it has none."""
        waits = self.asked.waits
        if not waits or not torch.is_grad_enabled():
            return t
        return attached(lambda by: refuse(what), t, *waits.values())

    def _out(self, t: Tensor) -> Tensor:
        """Give a flat tensor the caller's leading dimensions and dtype."""
        p = self.transport.problem
        t = t.reshape((*p.batch_shape[:-1], *t.shape[1:]))
        return t.to(p.dtype) if t.is_floating_point() else t

    def _shown(self) -> dict[str, object]:
        """Return what is shown of it: what is known without a pass over the cost."""
        p, w = self.transport.problem, self.asked.w
        return {
            "batch": p.batch_shape[:-1],
            "k": w.shape[-1],
            "n": p.shape[1],
            "m": p.shape[2],
            "debiased": self.asked.debiased,
            "status": self.statuses,
            "n_iter": self.sweeps,
            "marginal_error": self.measured,
        }
