"""What every solver returns: a plan, its potentials, its values, and how far to trust them."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, checks, shown, within
from sinkhorn_ot.sweeps import Drops

from .base import Result, Sketch, of_plan, of_transport, picked
from .certificate import Certificate, dual_value, feasible_duals
from .coupling import Coupling, Entropic, Stored, levelled, marginal_error
from .coupling import log_plan as form_log_plan
from .coupling import plan as form_plan
from .graph import Copied, Derivatives, attached, outside, uncompiled
from .maps import Maps
from .rounding import feasible
from .status import ConvergenceError, Status, Stranded, after, in_words, worst
from .values import allowed, conjugates, penalties, slack, stays


@shown
@dataclass(frozen=True, eq=False)
class Transport(Copied, Maps, Result):
    """The answer to a transport problem, for one problem or a batch of them.

    Everything that costs a pass over the cost is computed when first asked for. Tensors have the
    batch's leading dimensions, the caller's device, and float64 or float32.

    Attributes:
        problem: The validated problem.
        coupling: The plan, as it is held.
        method: What solved it.
        statuses: How each problem of the flat batch ended.
        sweeps: Iterations of each problem of the flat batch, (B,).
        measured: Marginal error at the solver's last look, (B,), or None if it never looked.
        notes: Why single problems have no plan, by their number in the flat batch.
        derivatives: What its numbers are functions of, if an argument requires grad. Measurements
            (errors, gap, bounds) are constants, and so is all of a deep copy or of a pickle.
    """

    problem: Problem
    coupling: Coupling
    method: str
    statuses: list[Status]
    sweeps: Tensor
    measured: Tensor | None = None
    notes: dict[int, Stranded] = field(default_factory=dict)
    derivatives: Derivatives | None = None

    _tells = (
        *("f", "g", "value", "value_linear", "dual_value", "gap", "marginal_error", "converged"),
        *("n_iter", "statuses", "status", "method"),
    )

    @property
    @uncompiled
    def plan(self) -> Tensor:
        """The plan, (..., n, m)."""
        return self._function("plan", self._plan)

    @property
    @uncompiled
    def log_plan(self) -> Tensor:
        """The logarithm of the plan, (..., n, m), also where the plan itself underflows.

        -inf only where a pair is forbidden, a point has no weight, or an exact plan has no mass.
        """
        return self._function("log_plan", self._log_plan)

    @property
    @uncompiled
    def f(self) -> Tensor:
        """Source potential in units of the cost, (..., n); finite everywhere, zero in padding.

        Potentials of exact marginals share a constant, which is such that `<b, g> = 0`.
        """
        return self.problem.blank(self._function("f", self._potentials[0]), 0)

    @property
    @uncompiled
    def g(self) -> Tensor:
        """Target potential in units of the cost, (..., m); finite everywhere, zero in padding."""
        return self.problem.blank(self._function("g", self._potentials[1]), 1)

    @property
    @uncompiled
    def value_linear(self) -> Tensor:
        """Transport cost `<P, C>` of the plan, (...)."""
        return self._function("value_linear", self._linear)

    @property
    @uncompiled
    def value(self) -> Tensor:
        """The objective at the plan: `<P, C> + reg KL(P | a b^T)` + penalties, (...).

        KL(p | q) = sum p log(p / q) - p + q, on plans and on relaxed marginals alike.
        """
        return self._function("value", self._primal)

    @property
    @uncompiled
    def dual_value(self) -> Tensor:
        """The dual objective at f, g, (...); no larger than the optimum of `value`."""
        return self._function("dual_value", self._dual)

    @property
    def gap(self) -> Tensor:
        """`value` minus `dual_value`, (...): zero at the solution.

        A plan that misses its marginals is not feasible, so the gap may then be of either sign.
        """
        return self._out(self._primal - self._dual)

    @cached_property
    @uncompiled
    def marginal_error(self) -> Tensor:
        """L1 distance of the marginals from what they must be, relative to that mass, (...).

        They must be the weights where these are exact, weight * exp(-potential / rho) beside KL
        penalties, and what a plain step would make of them beside others: zero at the solution.
        """
        if self.measured is not None:
            return self._out(self.measured)
        return self._out(marginal_error(self.coupling, (self._rows, self._columns)))

    @cached_property
    def converged(self) -> Tensor:
        """Whether each problem was measured to be within its tolerance, (...), bool."""
        good = [s in (Status.CONVERGED, Status.OPTIMAL) for s in self.statuses]
        return self._out(torch.tensor(good, dtype=torch.bool, device=self.problem.a.device))

    @property
    def status(self) -> Status:
        """How the solve ended; of a batch, the worst."""
        return worst(self.statuses)

    @property
    def dropped(self) -> float:
        """At most what was left out of the plan, relative to its mass, because it cannot count.

        Clouds in few dimensions leave out pairs of far points, never more than the tolerance; all
        else leaves out nothing. `dual_value` and the bounds of `certificate` allow for it.
        """
        sweep = getattr(self.coupling, "sweep", None)
        return sweep.dropped if isinstance(sweep, Drops) else 0.0

    @property
    def n_iter(self) -> Tensor:
        """Iterations each problem took, (...), int64."""
        return self._out(self.sweeps)

    @property
    def message(self) -> str:
        """How the solve ended, with the error it reached; of a batch, how many, and the worst."""
        bad = [k for k, s in enumerate(self.statuses) if s is self.status]
        why = [f"{str(self.notes[k]).capitalize()}." for k in bad if k in self.notes]
        reached = ""
        if (measured := self.measured) is not None and bad:
            k = max(bad, key=lambda k: float(measured[k]))
            reached = after(float(measured[k]), int(self.sweeps[k]))
        text = in_words(self.statuses, "".join(why[:1]), reached)
        if self._rounded_apart(bad):
            text += (
                " So much may be the rounding of weights that were given in less than float64: "
                "give them in float64, or a tol above it."
            )
        if self.problem.far < math.inf:
            text += f" Pairs that cost more than {self.problem.far:.3g} counted as forbidden."
        return text

    def _rounded_apart(self, bad: list[int]) -> bool:
        """Say whether what problems miss may be what their weights were rounded by."""
        p = self.problem
        if not (p.exact and p.bounds.forbids) or self.measured is None:
            return False
        if self.status is Status.INFEASIBLE:
            return all(why.held - why.taken <= p.rounded * why.held for why in self.notes.values())
        stalled = self.status is Status.STALLED
        return stalled and max(float(self.measured[k]) for k in bad) <= 2 * p.rounded

    def check(self) -> "Transport":
        """Return self, or raise `ConvergenceError` if some problem was not solved to tolerance."""
        if not bool(self.converged.all()):
            raise ConvergenceError(self.message, self)
        return self

    def apply(self, x: Tensor) -> Tensor:
        """Return P @ x without the plan.

        Args:
            x: Vectors over the target points, (..., m) or (..., m, k); where the leading dimensions
                are those of the batch, x is one vector per problem.
        """
        return self._applied("apply", x, self.problem.shape[2])

    def apply_transpose(self, x: Tensor) -> Tensor:
        """Return P^T @ x without the plan.

        Args:
            x: Vectors over the source points, (..., n) or (..., n, k), told apart likewise.
        """
        return self._applied("apply_transpose", x, self.problem.shape[1])

    def barycentric(self, y: Tensor) -> Tensor:
        """Return where each source point is sent on average, sum_j P_ij y_j / sum_j P_ij.

        Args:
            y: Positions of the target points, (..., m) or (..., m, d).
        """
        return self._applied("barycentric", y, self.problem.shape[2])

    @uncompiled
    def round(self) -> Tensor:
        """Return the nearest plan of Altschuler et al. (2017) with exact marginals, (..., n, m)."""
        self._exact_only("round()")
        self._constant_only("round()")
        return self._out(feasible(self.coupling).plan())

    @uncompiled
    def certificate(self) -> Certificate:
        """Return bounds on the optimum of the unregularised problem, with a feasible dual."""
        self._exact_only("certificate()")
        self._constant_only("certificate()")
        p = self.problem
        f, g = feasible_duals(p, self.coupling.f, self.coupling.g)
        upper = feasible(self.coupling).linear()
        parts = (dual_value(p, f, g), upper, f, g)
        p.settle()
        # bounds keep the working precision: a float32 bound may be rounded past the optimum
        return Certificate(*(t.reshape((*p.batch_shape, *t.shape[1:])) for t in parts))

    # kept are numbers without derivatives: those depend on where they are asked for
    @cached_property
    def _plan(self) -> Tensor:
        return form_plan(self.coupling)

    @cached_property
    def _log_plan(self) -> Tensor:
        return form_log_plan(self.coupling)

    @cached_property
    def _linear(self) -> Tensor:
        return self.coupling.linear()

    @cached_property
    @uncompiled
    def _rows(self) -> Tensor:
        """Row sums of the plan, (B, n)."""
        return self.coupling.apply(torch.ones_like(self.problem.b)[..., None])[..., 0]

    @cached_property
    @uncompiled
    def _columns(self) -> Tensor:
        """Column sums of the plan, (B, m)."""
        return self.coupling.apply(torch.ones_like(self.problem.a)[..., None], True)[..., 0]

    @cached_property
    def _primal(self) -> Tensor:
        p = self.problem
        f, g, stored = self.coupling.f, self.coupling.g, isinstance(self.coupling, Stored)
        if stored and p.exact:
            return self._linear
        # <P, C> + reg sum P log(P / ab) = <f, P 1> + <g, P^T 1>, then the masses of KL
        rows, columns = self._rows, self._columns
        value = self._linear if stored else p.summed(f * rows, 0) + p.summed(g * columns, 1)
        return value + penalties(p, rows, columns) + slack(p, rows) + stays(p)

    @cached_property
    def _dual(self) -> Tensor:
        p = self.problem
        f, g = self.coupling.f, self.coupling.g
        if isinstance(self.coupling, Stored) and p.exact:
            return dual_value(p, f, g)
        value = slack(p, self._rows)
        if p.penalised and isinstance(self.coupling, Entropic):
            value, f, g = allowed(self.coupling)
        # what was left out would lower it
        value = value - p.reg * self.dropped * p.summed(self._rows, 0)
        return value + conjugates(p, f, g) + stays(p)

    def _out(self, t: Tensor) -> Tensor:
        """Give a flat tensor the caller's leading dimensions and dtype."""
        batch, dtype = self.problem.batch_shape, self.problem.dtype
        t = t.reshape((*batch, *t.shape[1:])) if batch else t[0]
        t = t.to(dtype) if t.is_floating_point() and t.dtype != dtype else t
        if t.is_inference():
            # kept for later, when a graph may need it, which takes nothing of inference mode
            with torch.inference_mode(False):
                return t.clone()
        return t

    @uncompiled
    def _applied(self, kind: str, x: Tensor, size: int) -> Tensor:
        p, name = self.problem, "y" if kind == "barycentric" else "x"
        if checks.transforming() and checks.transformed(x):
            self._constant_only(f"{kind}() of what is inside a transform")
            return outside(lambda one: (self._applied(kind, one, size),), x)[0]
        x = checks.tensor(name, x, graph=True)
        checks.same_device(name, x, p.a.device, "the cost")
        vector = x.ndim == 1 or x.shape == (*p.batch_shape, size)
        columns = x[..., None] if vector else x
        if x.ndim == 0 or columns.shape[-2] != size:
            shape = f"(..., {size}) or (..., {size}, k)"
            raise ValueError(f"{name} must have shape {shape}, got {tuple(x.shape)}")
        within(name, columns.shape[:-2], p.batch_shape)
        side = 0 if kind == "apply_transpose" else 1
        wide = columns.to(p.work).expand(*p.batch_shape, *columns.shape[-2:])
        flat = p.blank(wide, side).reshape(p.shape[0], *columns.shape[-2:])
        out = p.blank(self._function(kind, self._acted(kind, flat), flat), 1 - side)
        return out[..., 0] if vector else out

    def _acted(self, kind: str, x: Tensor, back: bool = False) -> Tensor:
        """Return what a linear map makes of x, or its transpose, as a function of x."""
        act = self.coupling.conditional if kind == "barycentric" else self.coupling.apply
        out = act(x.detach(), back != (kind == "apply_transpose"))
        if not (x.requires_grad and torch.is_grad_enabled()):
            return out
        return attached(lambda by: (self._acted(kind, by, not back),), out, x)

    @property
    def _potentials(self) -> tuple[Tensor, Tensor]:
        f, g = self.coupling.f, self.coupling.g
        # feasible duals are so to the last digit, which a constant would take
        return (f, g) if isinstance(self.coupling, Stored) else levelled(self.problem, f, g)

    def detach(self) -> "Transport":
        """Return the same result with all its numbers constants."""
        return replace(self, derivatives=None)

    def _function(self, kind: str, flat: Tensor, *given: Tensor) -> Tensor:
        """Give flat numbers their derivatives, and the caller's leading dimensions and dtype."""
        if self.derivatives is not None and torch.is_grad_enabled():
            flat = self.derivatives.link(kind, flat, *given)
        return self._out(flat)

    def _constant_only(self, what: str) -> None:
        if self.derivatives is not None and torch.is_grad_enabled():
            raise ValueError(
                f"{what} has no derivatives: call it of .detach(), or under torch.no_grad()"
            )

    def _exact_only(self, what: str) -> None:
        if not self.problem.exact:
            raise ValueError(f"{what} needs exact marginals, got {self.problem.asked}")

    @property
    def _batch(self) -> torch.Size:
        return self.problem.batch_shape

    def _picked(self, at: Tensor) -> "Transport":
        found: Transport = picked(self, at, self._batch)
        return found

    def _sketch(self) -> Sketch:
        if self.problem.spread is not None:
            raise ValueError("plot needs the rows of all ranks, got those of one")
        held = self.coupling
        return of_plan(held.P[0], self.problem) if isinstance(held, Stored) else of_transport(self)

    def _shown(self) -> dict[str, object]:
        """Return what is shown of it: what is known without a pass over the cost."""
        p, error = self.problem, self.measured
        # on an accelerator even to look would wait
        known = error is not None and error.device.type == "cpu" and error.numel()
        worst = error.max() if error is not None and known else error
        return {
            "batch": p.batch_shape,
            "n": p.shape[1],
            "m": p.shape[2],
            "method": self.method,
            "status": self.statuses,
            "n_iter": self.sweeps.reshape(p.batch_shape),
            "marginal_error": "not measured" if worst is None else worst,
            **({"dropped": self.dropped} if self.dropped else {}),
        }
