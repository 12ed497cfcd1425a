"""Maps out of sample: potentials, and where a plan sends points, as functions of new points.

Given the other side's potential, that of a point depends on its own costs alone: so a new point has
one too. With v_j = g_j / reg + log b_j and s_j = v_j - c(x, y_j) / reg it is
f(x) = -kappa reg log sum_j exp(s_j), where kappa is 1 for an exact side, rho / (rho + reg) for a
relaxed and 0 for a free one; and softmax(s) says where it goes, whatever kappa is.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sinkhorn_ot.problem import (
    KL,
    TV,
    ArrayLike,
    Bounds,
    GridCost,
    PointCloud,
    Problem,
    at_once,
    checks,
    flatten,
    shown,
    within,
)
from sinkhorn_ot.sweeps import elasticity, exp_, exponent, weightless

from .coupling import Coupling, Entropic
from .graph import attached, outside, uncompiled


Side = Literal["source", "target"]
SIDES: tuple[Side, ...] = get_args(Side)
# costs of new points that are formed at once on a CPU
_BLOCK = 1 << 18


class Maps:
    """What a result says of points that were not there when it was solved."""

    problem: Problem
    coupling: Coupling

    @uncompiled
    def potential(
        self, x: ArrayLike | None = None, *, cost: ArrayLike | None = None, side: Side = "source"
    ) -> Tensor:
        """Return the potential at new points, in units of the cost: of the fitted ones `f` or `g`.

        It is the transform of the other side's potential, over the points with weight: soft, with
        the factor rho / (rho + reg) of a side relaxed by KL or within [-rho, rho] by TV, for
        `solve`, and min_j c(x, y_j) - g_j for `solve_exact`. It is made in blocks, in float64, and
        has derivatives of any order by x or cost, none by what was solved: under "sqeuclidean" and
        exact marginals x minus half its gradient is `map(x)`.

        Args:
            x: New points, (..., k, d), where the problem's cost is a `PointCloud`.
            cost: Instead of x, what new points cost: rows (..., k, m), or with side="target"
                columns (..., n, k). Costs that are a matrix, as those of `solve_exact` are, ask for
                it.
            side: "source" or "target": on which side the points are new.

        Returns:
            One number per point, (..., k), with the leading dimensions of the batch.

        Raises:
            ValueError: If the points or costs do not fit or are no numbers, a point is too far for
                a finite cost, or this side has a penalty by which a point's answer depends on its
                weight, a number of its own, or on other points: L2, bounds, a stated mass, or one
                number per point.
        """
        self._constant_only("potential() by the arguments of its problem")
        return self._extended(lambda t: _New.of(self, t, side).potential(), x, cost)

    @uncompiled
    def map(
        self, x: ArrayLike | None = None, *, y: ArrayLike | None = None,
        cost: ArrayLike | None = None, side: Side = "source",
    ) -> Tensor:  # fmt: skip
        """Return where the plan sends new points on average: of the fitted ones, `barycentric(y)`.

        The mean of y under softmax_j(log b_j + (g_j - c(x, y_j)) / reg), in blocks: no matrix of k
        and m is held. It has derivatives of any order by x, y and cost, none by what was solved.

        Source: V. Seguy et al., Large-scale optimal transport and mapping estimation, ICLR 2018;
        A.-A. Pooladian, J. Niles-Weed, Entropic estimation of optimal transport maps, 2021,
        equation 3.

        Args:
            x: New points, (..., k, d), where the problem's cost is a `PointCloud`.
            y: What to average, such as positions of the target points, (..., m, e); None means the
                target points of the cloud. With side="target" those of the source points.
            cost: Instead of x, as in `potential`.
            side: "source" or "target": on which side the points are new.

        Returns:
            One mean per point, (..., k, e); zero for a point that no pair allows.

        Raises:
            ValueError: If the points do not fit or are no numbers, a point is too far for a finite
                cost, or the plan is that of `solve_exact`, which says nothing of other points.
        """
        self._constant_only("map() by the arguments of its problem")
        if not isinstance(self.coupling, Entropic):
            raise ValueError(
                "map() needs the plan of solve: that of solve_exact, whose pairs are few, says "
                "nothing of other points; take solve with a small reg, or potential()"
            )
        return self._extended(lambda t: _New.of(self, t, side).mean(y), x, cost)

    def _extended(self, tell: Callable[["_Given"], Tensor], x: Any, cost: Any) -> Tensor:
        """Tell of new points, or of their costs, outside of the transforms that they are in."""
        if (x is None) == (cost is None):
            raise ValueError("x or cost must be given, new points or what they cost, and not both")
        points = x is not None
        t = x if points else cost
        if checks.transforming() and checks.transformed(t):
            return outside(lambda one: (self._out(tell((one, points))),), t)[0]
        return self._out(tell((t, points)))

    def _out(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def _constant_only(self, what: str) -> None:
        raise NotImplementedError


# new points, or what they cost, and which of both
_Given = tuple[Any, bool]


@shown
@dataclass(frozen=True, eq=False)
class _New:
    """New points of one side of a solved problem.

    Attributes:
        problem: The problem.
        coupling: Its answer.
        side: 0 if sources are new, 1 if targets are.
        new: The points (1 or B, k, d), or their costs (1 or B, k, m); may require grad.
        cloud: Costs of points of this side and of the other, if new ones are given as points.
    """

    problem: Problem
    coupling: Coupling
    side: int
    new: Tensor
    cloud: PointCloud | None

    @classmethod
    def of(cls, result: Maps, given: _Given, side: str) -> "_New":
        """Take points or their costs, checked."""
        p, k = result.problem, SIDES.index(checks.one_of("side", side, SIDES))
        if p.beside is not None:
            raise ValueError(
                "potential() and map() need all columns, which ranks hold apart: leave the columns "
                "whole, or spread the rows alone"
            )
        if k and p.spread is not None:
            raise ValueError(
                'side must be "source" where rows are spread over a group, got "target", whose '
                "new points look at all rows"
            )
        t, points = given
        if not points:
            return cls(p, result.coupling, k, _costs(p, t, k), None)
        if not isinstance(p.cost, PointCloud):
            shape = f"(..., k, {p.shape[2]})" if k == 0 else f"(..., {p.shape[1]}, k)"
            raise ValueError(f"cost must be given, {shape}: {_held(result)}")
        cloud = p.cost.transposed() if k else p.cost
        return cls(p, result.coupling, k, _points(p, t, cloud), cloud)

    def potential(self) -> Tensor:
        """Return the potential at the new points, (B, k)."""
        p, k = self.problem, self.side
        if not isinstance(self.coupling, Entropic):
            if not p.exact:
                raise ValueError(
                    "potential() of solve_exact needs exact marginals, whose potentials are "
                    f"c-transforms, got {p.asked}"
                )
            return self._told(self._least)
        answer, reg = self._rule(), p.reg.double()[:, None]
        level = p.shifts[k] + (self._level if p.one_mass else 0.0)

        def tell(C: Tensor) -> Tensor:
            peak, _, mass = self._shares(C)
            alone = mass == 0
            log_sum = torch.where(alone, 1.0, mass).log() + peak
            # a point that no pair allows has no answer
            return torch.where(alone, 0.0, reg * answer(log_sum) + level)

        return self._told(tell)

    def _rule(self) -> Callable[[Tensor], Tensor]:
        """Return how a point of any weight answers its log_sum, in units of reg."""
        p, penalty = self.problem, self.problem.penalties[self.side]
        if penalty is None:
            kappa = elasticity(p, self.side).double()[:, None]
            return lambda log_sum: -kappa * log_sum
        if not isinstance(penalty, (KL, TV)) or bool((penalty.rho != penalty.rho[:, :1]).any()):
            got = p.asked if p.one_mass else f"{penalty!r} on the {SIDES[self.side]}s"
            raise ValueError(
                f"potential() needs a side whose points all have one rule, got {got}, which says "
                "nothing of new ones: map() does not ask for it"
            )
        rule, reg = replace(penalty, rho=penalty.rho[:, :1].double()), p.reg.double()[:, None]
        return lambda log_sum: rule.answer(log_sum, torch.ones_like(log_sum), reg)

    def mean(self, y: Any) -> Tensor:
        """Return the mean of y where the new points go, (B, k, e)."""

        def tell(C: Tensor, y: Tensor) -> Tensor:
            _, shares, mass = self._shares(C)
            # few columns that lie side by side multiply quicker than strided ones
            sums = torch.matmul(y, shares.mT).mT
            return sums / torch.where(mass == 0, 1.0, mass)[..., None]

        return self._told(tell, self._positions(y).mT.contiguous())

    def _positions(self, y: Any) -> Tensor:
        """Return what to average, (1 or B, m, e), in float64."""
        if y is None and self.cloud is not None:
            return self.cloud.y.double()
        p, size = self.problem, self.problem.shape[2 - self.side]
        if y is None:
            raise ValueError(f"y must be given beside cost: what to average, (..., {size}, e)")
        t = checks.at_least_dims(
            "y", checks.tensor("y", y, whole=True, graph=True), 2, "(..., m, e)"
        )
        checks.same_device("y", t, p.a.device, "the cost")
        if t.shape[-2] != size:
            raise ValueError(f"y must have shape (..., {size}, e), got {tuple(t.shape)}")
        if p.there is not None:
            t = p.blank(t.expand(*p.batch_shape, *t.shape[-2:]), 1 - self.side)
        checks.finite("y", t.detach())
        return _flat("y", t, p).double()

    def _costs(self, new: Tensor) -> Callable[[slice], Tensor]:
        """Return what tells the costs of some of the new points, (1 or B, r, m), in float64."""
        if self.cloud is None:
            return lambda at: new[:, at].double()
        batch = max(len(new), len(self.cloud.y))
        x, y = (t.expand(batch, -1, -1) for t in (new, self.cloud.y))
        join, (left, right) = self.cloud.rule.join, self.cloud.factors_of(x, y)
        look = self.cloud.looked_at
        return lambda at: look(join(left[:, at], right), at.start or 0)

    def _shares(self, C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the largest exponents, exponentials of the others less these, and their sums."""
        p, (v, scale) = self.problem, self._scaled
        s = exponent(C - p.shift if p.shift else C, scale, None, v)
        peak = s.detach().amax(-1)
        peak = torch.where(peak > -math.inf, peak, 0.0)
        s.sub_(peak[..., None])
        shares = s.exp() if s.requires_grad else exp_(s)
        return peak, shares, shares.sum(-1)

    @cached_property
    def _scaled(self) -> tuple[Tensor, float | Tensor]:
        """The scaled potential of the other side, (B, m), and 1 / reg."""
        assert isinstance(self.coupling, Entropic)
        p, v = self.problem, (self.coupling.v, self.coupling.u)[self.side]
        own = (1.0 / p.reg.double())[:, None, None]
        return v.double(), own if p.one_reg is None else 1.0 / p.one_reg

    @property
    def _level(self) -> Tensor:
        """What exact marginals' potentials share, as f and g are told, (B, 1)."""
        assert isinstance(self.coupling, Entropic)
        p = self.problem
        b, v = p.b.double(), self.coupling.v.double()
        g = weightless(v, b.log()) * p.reg.double()[:, None] + p.shifts[1]
        level = (b * g).sum(-1, keepdim=True) / b.sum(-1, keepdim=True)
        return -level if self.side else level

    def _least(self, C: Tensor) -> Tensor:
        """Return min_j c(x, y_j) - g_j over points with weight, (B, r)."""
        p, k = self.problem, self.side
        other = (self.coupling.g, self.coupling.f)[k].double()
        other = torch.where((p.b, p.a)[k] > 0, other, -math.inf)
        least = (C - other[:, None, :]).amin(-1)
        return torch.where(least < math.inf, least, 0.0)

    def _told(self, tell: Callable[..., Tensor], *given: Tensor) -> Tensor:
        """Return what is told of all new points, block by block, with derivatives likewise."""
        new = self.new
        with torch.no_grad():
            costs = self._costs(new)
            numbers = torch.cat([tell(costs(at), *given) for at in self._blocks()], 1)
        if not torch.is_grad_enabled() or not any(t.requires_grad for t in (new, *given)):
            return numbers

        def pull(by: Tensor) -> tuple[Tensor | None, ...]:
            rows: list[Tensor] = []
            sums = [torch.zeros_like(t) for t in given]
            for at in self._blocks():
                one, *others = self._pulled(tell, by[:, at], new[:, at], *given)
                rows.append(one)
                sums = [s + t for s, t in zip(sums, others, strict=True)]
            return _sound(torch.cat(rows, 1), by), *sums

        return attached(pull, numbers, new, *given)

    def _pulled(self, tell: Callable[..., Tensor], by: Tensor, *parts: Tensor) -> list[Tensor]:
        """Return derivatives by some new points and by what else is given."""
        twice = torch.is_grad_enabled()
        if not twice:
            parts = tuple(t.detach().requires_grad_() for t in parts)
        with torch.enable_grad():
            told = tell(self._costs(parts[0])(slice(None)), *parts[1:])
        waits = [t for t in parts if t.requires_grad]
        found = iter(torch.autograd.grad(told, waits, by, create_graph=twice))
        return [next(found) if t.requires_grad else torch.zeros_like(t) for t in parts]

    def _blocks(self) -> Iterator[slice]:
        """Yield the new points in parts whose costs have a bounded size."""
        p, k = self.problem, self.new.shape[1]
        pairs = p.shape[0] * p.shape[2 - self.side]
        size = max(1, at_once(self.new.device, _BLOCK) // pairs)
        for start in range(0, k, size):
            yield slice(start, min(k, start + size))


def _held(result: Maps) -> str:
    """Say why new points do not tell what they cost."""
    cost = result.problem.cost
    if isinstance(cost, GridCost):
        return "a GridCost knows its own points alone"
    held = "solve_exact holds" if not isinstance(result.coupling, Entropic) else "the problem has"
    return f"{held} costs as a matrix, which does not say what new points cost"


def _points(p: Problem, x: Any, cloud: PointCloud) -> Tensor:
    """Return new points (1 or B, k, d)."""
    d = cloud.x.shape[-1]
    t = checks.at_least_dims("x", checks.tensor("x", x, whole=True, graph=True), 2, "(..., k, d)")
    checks.same_device("x", t, p.a.device, "the cost")
    if t.shape[-1] != d:
        raise ValueError(
            f"x must have points of {d} coordinates, as those that were solved for, got "
            f"{tuple(t.shape)}"
        )
    checks.finite("x", t.detach())
    t = _flat("x", t, p)
    # a function may forbid what is far, and is called for each block once
    if isinstance(cloud.metric, str):
        _finite_by_reg(cloud.bounds_of(t, cloud.y), p)
    return t


def _costs(p: Problem, cost: Any, side: int) -> Tensor:
    """Return what new points cost, a row each, (1 or B, k, m)."""
    t = checks.tensor("cost", cost, whole=True, graph=True)
    t = checks.at_least_dims("cost", t, 2, "(..., k, m)")
    checks.same_device("cost", t, p.a.device, "the cost that was solved")
    size = p.shape[2 - side]
    if t.shape[side - 1] != size:
        shape = f"(..., {size}, k)" if side else f"(..., k, {size})"
        raise ValueError(f"cost must have shape {shape}, got {tuple(t.shape)}")
    t = t.mT if side else t
    if p.there is not None:
        # what new points would pay to padding may be anything
        wide = t.mT.expand(*p.batch_shape, size, t.shape[-2])
        t = p.blank(wide, 1 - side).mT
    _finite_by_reg(Bounds(*checks.cost_entries("cost", t.detach())), p)
    return _flat("cost", t, p)


def _finite_by_reg(bounds: Bounds, p: Problem) -> None:
    """Require costs that are finite in units of reg: others would forbid their pairs."""
    largest = max(-bounds.low, bounds.high)
    if p.least_reg and largest > p.least_reg * sys.float_info.max:
        raise ValueError(
            f"cost / reg must be finite, got costs up to {largest:.3g} at reg {p.least_reg:.3g}"
        )


def _flat(name: str, t: Tensor, p: Problem) -> Tensor:
    """Return (..., k, e) as (1 or B, k, e)."""
    within(name, t.shape[:-2], p.batch_shape)
    return flatten(t, p.batch_shape, t.shape[:-2].numel() == 1)


def _sound(t: Tensor, by: Tensor) -> Tensor:
    """Require derivatives that are numbers where numbers came in."""
    if bool(t.isfinite().all()) or not bool(by.isfinite().all()):
        return t
    raise RuntimeError(
        "x has a derivative that is no number, as a metric with a root has where points coincide: "
        "let it take torch.cdist, or add a small number under the root"
    )
