"""What `sinkhorn_distance` returns: distance, plan, bounds, and how far to trust them."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, shown
from sinkhorn_ot.results import (
    ConvergenceError,
    Copied,
    Derivatives,
    Entropic,
    Result,
    Sketch,
    Status,
    Transport,
    in_words,
    of_plan,
    picked,
    worst,
)
from sinkhorn_ot.sweeps import passes


@shown
@dataclass(frozen=True, eq=False)
class Found:
    """Where one problem ended; masses are one, costs count from a shift and in a unit.

    Attributes:
        unit: In what costs count.
        theta: unit / reg of the plan; 0 is independence.
        reg: What cost falls by for a unit of alpha: the constraint's multiplier.
        u: Scaled row potentials, (n,).
        v: Scaled column potentials, (m,).
        plan: The plan itself, (n, m), where it is exact.
        cost: <P, C>.
        kl: KL(P | a b^T).
        lower: No plan within alpha costs less.
        upper: Some plan within alpha costs no more.
        error: L1 error of the marginals.
        n_iter: Sweeps' worth of work.
        status: How it ended.
        active: Whether more divergence would make it cheaper.
    """

    unit: float
    theta: float
    reg: float
    u: Tensor
    v: Tensor
    cost: float
    kl: float
    lower: float
    upper: float
    error: float
    n_iter: int
    status: Status
    active: bool = True
    plan: Tensor | None = None


@shown
@dataclass(frozen=True, eq=False)
class SinkhornDistance(Copied, Result, parts=(Found,)):
    """Cuturi's distance for one problem or a batch, with the plan that has it.

    Tensors have the batch's leading dimensions, the caller's device, and float64 or float32. The
    plan is formed when it is first asked for, from the cost, which must not be changed till then.

    Attributes:
        problem: The validated problem, at the reg of each plan.
        alpha: The largest divergence allowed, of the flat batch, (B,).
        found: Where each problem of the flat batch ended.
        derivatives: What `value` is a function of, if an argument requires grad; nothing else is.
    """

    problem: Problem
    alpha: Tensor
    found: list[Found]
    derivatives: Derivatives | None = None

    _tells = (
        *("value", "value_linear", "gap", "reg", "kl", "active", "marginal_error", "converged"),
        *("n_iter", "statuses", "status"),
    )

    @property
    def value(self) -> Tensor:
        """The distance d_{M, alpha}, (...), in units of cost times mass.

        It is the dual value F(reg) - reg alpha, which is never above the distance but for rounding,
        and misses it by the square of what reg and the potentials miss.
        """
        flat = self._flat_costs([x.lower for x in self.found], shifted=True)
        return self._out(self._function("value", flat))

    @cached_property
    def gap(self) -> Tensor:
        """Cost of a plan within alpha, less `value`, (...): no less than what `value` may miss."""
        return self._costs([x.upper - x.lower for x in self.found], shifted=False)

    @cached_property
    def value_linear(self) -> Tensor:
        """Transport cost <P, C> of the plan, (...), mended for what its columns miss within tol."""
        return self._function("value_linear", self._costs([x.cost for x in self.found]))

    @property
    def plan(self) -> Tensor:
        """The plan, (..., n, m)."""
        return self._function("plan", self._plan)

    @property
    def coupling(self) -> Entropic:
        """The plans by their potentials, where reg is above zero and finite."""
        p = self.problem
        u, v = (
            torch.stack([getattr(x, name) for x in self.found]) if self.found else none
            for name, none in (("u", p.a), ("v", p.b))
        )
        return Entropic(passes(p, None), u + p.a.sum(-1, keepdim=True).log(), v)

    @cached_property
    def _plan(self) -> Tensor:
        p = self.problem
        mass = p.a.sum(-1, keepdim=True)
        P = Transport(p, self.coupling, "", self.statuses, self._counts).plan
        flat = P.reshape(p.shape)
        for k, x in enumerate(self.found):
            if x.plan is not None:
                flat[k] = mass[k] * x.plan
        return P

    @property
    def reg(self) -> Tensor:
        """The regularisation whose plan it is, (...), in units of the cost.

        It is the multiplier of the constraint: `value` falls by reg times mass for each unit of
        alpha. inf at alpha = 0; 0 where the constraint does not bind.
        """
        return self._function("reg", self._out(self._regs))

    @property
    def lam(self) -> Tensor:
        """Cuturi's lambda, 1 / reg, (...)."""
        return self._function("lam", self._out(1 / self._regs))

    @property
    def kl(self) -> Tensor:
        """KL(P | a b^T) for masses of one, (...), mended likewise."""
        # beside weights below tol what is mended may be more than all there is
        kl = [max(0.0, x.kl) if math.isfinite(x.kl) else x.kl for x in self.found]
        return self._function("kl", self._numbers(kl))

    @property
    def active(self) -> Tensor:
        """Whether the constraint binds, (...), bool; where not, `value` is the exact optimum."""
        return self._out(
            torch.tensor([x.active for x in self.found], dtype=torch.bool, device=self.alpha.device)
        )

    @property
    def marginal_error(self) -> Tensor:
        """L1 error of the plan's marginals, relative to the mass, (...)."""
        return self._numbers([x.error for x in self.found])

    @property
    def n_iter(self) -> Tensor:
        """Sweeps' worth of work that each problem took at all reg together, (...), int64."""
        return self._out(self._counts)

    @property
    def statuses(self) -> list[Status]:
        """How each problem of the flat batch ended."""
        return [x.status for x in self.found]

    @property
    def converged(self) -> Tensor:
        """Whether plan and value are within tolerance, (...), bool."""
        good = [s in (Status.CONVERGED, Status.OPTIMAL) for s in self.statuses]
        return self._out(torch.tensor(good, dtype=torch.bool, device=self.alpha.device))

    @property
    def status(self) -> Status:
        """How it ended; of a batch, the worst."""
        return worst(self.statuses)

    @property
    def message(self) -> str:
        """How it ended, with the gap it reached; of a batch, how many did and the worst."""
        bad, reached = [x for x in self.found if x.status is self.status], ""
        if bad:
            widest = max(bad, key=lambda x: x.unit * (x.upper - x.lower))
            gap = float(self.gap.reshape(-1)[self.found.index(widest)])
            reached = f"a gap of {gap:.3g} and a marginal_error of {widest.error:.3g}"
        return in_words(self.statuses, reached=reached)

    def check(self) -> "SinkhornDistance":
        """Return self, or raise `ConvergenceError` if some problem missed its tolerance."""
        if not bool(self.converged.all()):
            raise ConvergenceError(self.message, self)
        return self

    @property
    def _regs(self) -> Tensor:
        return self._units * self._flat([x.reg for x in self.found])

    @property
    def _units(self) -> Tensor:
        return self._flat([x.unit for x in self.found])

    @property
    def _counts(self) -> Tensor:
        return torch.tensor([x.n_iter for x in self.found], device=self.alpha.device)

    def _costs(self, numbers: list[float], shifted: bool = True) -> Tensor:
        return self._out(self._flat_costs(numbers, shifted))

    def _flat_costs(self, numbers: list[float], shifted: bool) -> Tensor:
        shift = self.problem.shift if shifted else 0.0
        return (self._units * self._flat(numbers) + shift) * self.problem.a.sum(-1)

    def _function(self, kind: str, numbers: Tensor) -> Tensor:
        """Give numbers their derivatives, if they have some."""
        if self.derivatives is None or not torch.is_grad_enabled():
            return numbers
        return self.derivatives.link(kind, numbers)

    def _numbers(self, numbers: list[float]) -> Tensor:
        return self._out(self._flat(numbers))

    def _flat(self, numbers: list[float]) -> Tensor:
        return self.alpha.new_tensor(numbers)

    def _out(self, t: Tensor) -> Tensor:
        t = t.reshape(self.problem.batch_shape)
        return t.to(self.problem.dtype) if t.is_floating_point() else t

    @property
    def _batch(self) -> torch.Size:
        return self.problem.batch_shape

    def _picked(self, at: Tensor) -> "SinkhornDistance":
        found: SinkhornDistance = picked(self, at, self._batch)
        return found

    def _sketch(self) -> Sketch:
        return of_plan(self.plan, self.problem)

    def _shown(self) -> dict[str, object]:
        """Return what is shown of it; half-built it has no value."""
        p, whole = self.problem, len(self.found) == len(self.problem.a)
        return {
            "batch": p.batch_shape,
            "n": p.shape[1],
            "m": p.shape[2],
            "value": self.value if whole else None,
            "status": [found.status for found in self.found],
            "gap": self.gap if whole else None,
        }
