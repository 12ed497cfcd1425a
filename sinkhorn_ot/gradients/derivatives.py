"""Derivatives of a solved problem, by implicit differentiation: nothing is unrolled.

A number depends on the arguments directly and through the potentials. What it makes of the pairs
says how it depends on the potentials, one linear system how those answer, and one more pass over
the pairs what both make of the arguments.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from sinkhorn_ot.problem import Penalty, PointCloud
from sinkhorn_ot.results import (
    ConvergenceWarning,
    Entropic,
    Leaves,
    Parts,
    Status,
    Transport,
    attached,
    final,
    levelled,
    plan,
)

from .kinds import KINDS, Direct
from .pairs import Weights, column_sums, row_sums, summed
from .ratios import Ratios
from .system import System


# roundings that potentials are made of, and what share of a derivative may be off untold
_ROUNDED, _LOOSE = 10.0, 1e-3


def differentiable(result: Transport, leaves: Leaves) -> Transport:
    """Return a result whose numbers are functions of the arguments that require grad."""
    return replace(result, derivatives=Implicit(result, leaves))


class Implicit:
    """Derivatives of what a result tells by the arguments of its problem.

    Args:
        result: The result, without derivatives.
        leaves: The arguments that have them.
    """

    def __init__(self, result: Transport, leaves: Leaves) -> None:
        assert isinstance(result.coupling, Entropic)
        self._result, self._leaves, self._of = result, leaves, result.coupling
        self._told = False

    def link(self, kind: str, flat: Tensor, *given: Tensor) -> Tensor:
        """Return numbers of the result with their derivatives."""
        leaves = self._leaves.tensors
        if self._result.problem.penalised:
            return attached(self._valued(kind), flat, *leaves)
        if kind in ("value", "dual_value"):
            return attached(self._value, flat, *leaves)

        def pull(by: Tensor) -> tuple[Tensor | None, ...]:
            self._warn()
            found = self._implicit(KINDS[kind](self._of, by, *(t.detach() for t in given)))
            parts = self._leaves.pulled(self._result.problem, found)
            return final(kind, parts, *leaves, *given)

        return attached(pull, flat, *leaves)

    def _valued(self, kind: str) -> Callable[[Tensor], tuple[Tensor | None, ...]]:
        """Return first derivatives of the value, which are all there are beside such penalties."""
        if kind not in ("value", "dual_value"):
            raise ValueError(
                f"{kind} has no derivatives beside mass= or penalties other than one KL number a "
                f"side, and {self._leaves.names} requires grad: only value has, others .detach() of"
            )

        def pull(by: Tensor) -> tuple[Tensor | None, ...]:
            with torch.no_grad():
                found = self._value(by)
            return final(f"{kind} beside such penalties", found, *self._leaves.tensors)

        return pull

    def _warn(self) -> None:
        """Tell whoever takes derivatives of a plan that is none yet, once."""
        told, self._told = self._told, True
        # asked of the list: a tensor may live where to look waits
        if not told and set(self._result.statuses) != {Status.CONVERGED}:
            error = float(self._result.marginal_error.max())
            warnings.warn(
                f"gradients are those of a plan that has not converged, and are off by about as "
                f"much as its marginals: marginal_error {error:.3g}",
                ConvergenceWarning,
                stacklevel=2,
            )

    def _weigh(self) -> None:
        """Tell of derivatives that rounding, or what marginals miss, may have decided."""
        p, missed = self._result.problem, self._result.measured
        rounding = torch.full_like(p.reg, _ROUNDED * torch.finfo(p.work).eps)
        loose = self._system.amplified * (rounding if missed is None else rounding.max(missed))
        if bool((loose > _LOOSE).any()):
            warnings.warn(
                f"gradients may be off by a share of {min(1.0, float(loose.max())):.2g}: what they "
                "ask of f and g hangs on pairs that carry next to nothing. A smaller tol, float64 "
                "or a larger reg helps; the plan itself is not concerned",
                ConvergenceWarning,
                stacklevel=2,
            )

    @cached_property
    def _system(self) -> System:
        return System(self._ratios)

    @cached_property
    def _ratios(self) -> Ratios:
        return Ratios(self._of)

    def _implicit(self, direct: Direct) -> Parts:
        """Return derivatives by the parts of the problem, through the potentials too."""
        p, w = self._result.problem, direct.pairs
        s, t = (
            torch.zeros_like(x) if y is None else y for x, y in ((p.a, direct.f), (p.b, direct.g))
        )
        if any(x is not None for x in (w.of_plan, w.of_rows, w.added, w.lost)):
            sums = summed(self._ratios, w)
            # what rows and columns without weight answer is in the pairs
            s = s + torch.where(p.a > 0, sums.rows, 0.0) / p.reg[:, None]
            t = t + torch.where(p.b > 0, sums.columns, 0.0) / p.reg[:, None]
        rows, columns = self._system.solve(s, t)
        self._weigh()
        given = self._leaves.given
        w = replace(w, rows=rows, columns=columns)
        costs = not {"cost", "x", "y"}.isdisjoint(given)
        sums = summed(self._ratios, w, costs=costs, energy="reg" in given)
        parts = {name: x.clone() for name, x in direct.parts.items()} | sums.cost
        own_b = (sums.columns + columns * self._system.mass[1]) / torch.where(p.b > 0, p.b, 1.0)
        for name, more in (("a", sums.over_a), ("b", own_b), ("reg", -sums.energy / p.reg)):
            parts[name] = parts[name] + more if name in parts else more
        sides = (("rho_a", rows, self._of.f), ("rho_b", columns, self._of.g))
        for (name, z, potential), mass, rho in zip(sides, self._system.mass, p.relax, strict=True):
            if 0 < rho < math.inf:
                more = (z * mass * potential).sum() / rho**2
                parts[name] = parts[name] + more if name in parts else more
        return parts

    def _value(self, by: Tensor) -> tuple[Tensor | None, ...]:
        """Return derivatives of the value: by the envelope theorem, the potentials held.

        With gradients on they are functions themselves, of what has first derivatives.
        """
        self._warn()
        p, given = self._result.problem, self._leaves.given
        parts: Parts = {}
        if "cost" in given:
            parts["C"] = self._moved(by)
        if "x" in given or "y" in given:
            parts |= self._moved_points(by)
        if "a" in given or ("b" in given and p.exact):
            parts["a"] = by[:, None] * self._worth(0)
        if "b" in given or ("a" in given and p.exact):
            parts["b"] = by[:, None] * self._worth(1)
        if "reg" in given:
            parts["reg"] = by * self._divergence()
        for side, name in enumerate(("rho_a", "rho_b")):
            if name in given or "rho" in given:
                parts[name] = (by * self._strayed(side)).sum()
        return self._leaves.pulled(p, parts)

    def _number(self, kind: str, flat: Tensor, *given: Tensor) -> Tensor:
        """Return a number of the result, as a function where derivatives are to have some."""
        return self.link(kind, flat, *given) if torch.is_grad_enabled() else flat

    def _times(self, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P x or P^T x, a function of x too."""
        flat = self._of.apply(x.detach(), transpose)
        if not torch.is_grad_enabled():
            return flat
        flat = attached(lambda by: (self._times(by, not transpose),), flat, x)
        return self.link("apply_transpose" if transpose else "apply", flat, x)

    def _moved(self, by: Tensor) -> Tensor:
        """Return the plan for each unit of the value: what a cost is worth."""
        P = self._number("plan", plan(self._of))
        by = by.to(P.dtype)[:, None]
        if self._result.problem.shared:
            return (by.mT @ P.flatten(1)).view_as(P[:1])
        # what was formed for this alone may be written over
        return by[..., None] * P if P.requires_grad else P.mul_(by[..., None])

    def _moved_points(self, by: Tensor) -> Parts:
        """Return what the factors of the cost are worth."""
        p, given = self._result.problem, self._leaves.given
        assert isinstance(p.cost, PointCloud)
        metric, twice = p.cost.rule, torch.is_grad_enabled()
        left, right = p.cost.factors
        if twice:
            live = self._live
            left, right = live["left"], live["right"]
        if metric.bilinear:
            x, y = (t.to(p.work).expand(p.shape[0], -1, -1) for t in (left, right))
            once = self._mirrored
            moved = self._times(y) if "x" in given else None
            back = self._times(x, transpose=True) if "y" in given and not once else None
            by = (2 * by if once else by)[:, None, None]
            pair = [t if t is None else by * t for t in (moved, back)]
            if len(left) == 1:
                pair = [t if t is None else t.sum(0, keepdim=True) for t in pair]
        elif twice:
            pair = list(metric.pull(left, right, self._moved(by).to(left.dtype)))
        else:
            return summed(self._ratios, Weights(own=by), costs=True).cost
        named = zip(("left", "right"), pair, strict=True)
        return {name: t for name, t in named if t is not None}

    @property
    def _mirrored(self) -> bool:
        """Whether a measure is moved onto itself: one side's derivatives are the other's too.

        Second derivatives see both sides, which then must stand apart.
        """
        p, given = self._result.problem, self._leaves.given
        one = "x" in given and given["x"] is given.get("y") and not torch.is_grad_enabled()
        return one and p.relax[0] == p.relax[1] and torch.equal(p.a, p.b)

    @property
    def _live(self) -> Parts:
        """The parts of the problem, as functions where derivatives are to have some."""
        p = self._result.problem
        a, b = (p.a, p.b) if p.aside is None else (p.a + p.aside[0], p.b + p.aside[1])
        held = {"a": a, "b": b, "reg": p.reg}
        held |= {k: p.reg.new_tensor(r) for k, r in zip(("rho_a", "rho_b"), p.relax, strict=True)}
        if torch.is_grad_enabled():
            held |= self._leaves.parts(p, self._leaves.given)
        return held

    def _potential(self, side: int) -> Tensor:
        potentials = levelled(self._result.problem, self._of.f, self._of.g)
        return self._number("fg"[side], potentials[side])

    def _worth(self, side: int) -> Tensor:
        """Return what the weights of a side are worth, (B, n) or (B, m)."""
        p, live = self._result.problem, self._live
        rho, reg = live[("rho_a", "rho_b")[side]], live["reg"][:, None]
        if (penalty := p.penalties[side]) is not None:
            return self._worth_beside(penalty, side)
        beside = reg * live["ba"[side]].sum(-1, keepdim=True)
        if p.relax[side] == 0:
            return beside - reg * self._ratio(side)
        potential = self._potential(side)
        if math.isinf(p.relax[side]):
            return potential + beside - reg
        worth = beside - reg - (rho + reg) * torch.expm1(-potential / rho)
        return worth if p.aside is None else torch.where(p.aside[side] > 0, beside + rho, worth)

    def _worth_beside(self, penalty: Penalty, side: int) -> Tensor:
        """Return the same beside a penalty that knows its dual."""
        k, p = self._of, self._result.problem
        weight, potential = (p.a, p.b)[side], (k.f, k.g)[side]
        log_sum = k.sweep.log_sum_columns(k.u) if side else k.sweep.log_sum_rows(k.v)
        ratio = ((potential - p.shifts[side]) / p.reg[:, None] + log_sum).exp()
        own = _by(penalty.dual, penalty.nearest(potential), weight)
        beside = p.reg[:, None] * p.masses[1 - side][:, None]
        worth = beside - p.reg[:, None] * ratio + own
        if p.aside is None:
            return worth
        stays = _by(penalty.value, torch.zeros_like(weight), p.aside[side])
        return torch.where(p.aside[side] > 0, beside + stays, worth)

    def _ratio(self, side: int) -> Tensor:
        """Return sum_j P_ij / a_i of the rows, or that of the columns, beside a free marginal."""
        p, weight = self._result.problem, self._live["ab"[side]]
        other = (p.b, p.a)[side]
        if not torch.is_grad_enabled() or bool((weight == 0).any()):
            ratio = (row_sums, column_sums)[side](self._of)
            what = "value beside a weight of zero on a free side"
            (found,) = final(what, (ratio,), *self._leaves.tensors)
            return cast("Tensor", found)
        return self._times(torch.ones_like(other)[..., None], side == 1)[..., 0] / weight

    def _divergence(self) -> Tensor:
        """Return KL(P | a b^T), (B,): what reg is worth."""
        p, live = self._result.problem, self._live
        f, g = self._potential(0), self._potential(1)
        rows = self._times(torch.ones_like(p.b)[..., None])[..., 0]
        columns = self._times(torch.ones_like(p.a)[..., None], transpose=True)[..., 0]
        linear = self._number("value_linear", self._of.linear())
        energy = (f * rows).sum(-1) + (g * columns).sum(-1) - linear
        both = live["a"].sum(-1) * live["b"].sum(-1)
        return energy / live["reg"] - rows.sum(-1) + both

    def _strayed(self, side: int) -> Tensor:
        """Return the divergence of a relaxed marginal, (B,): what its penalty is worth."""
        p, live = self._result.problem, self._live
        rho, weight = live[("rho_a", "rho_b")[side]], live["ab"[side]]
        pull = -self._potential(side) / rho
        off = torch.where(p.a > 0 if side == 0 else p.b > 0, pull * pull.exp() - pull.expm1(), 0.0)
        strayed = (weight * off).sum(-1)
        return strayed if p.aside is None else strayed + p.aside[side].sum(-1)


def _by(worth: Callable[[Tensor, Tensor], Tensor], held: Tensor, weight: Tensor) -> Tensor:
    """Return the derivatives of a function of something held and of weights by the weights."""
    with torch.enable_grad():
        live = weight.detach().requires_grad_()
        total = worth(held.detach(), live).sum()
        # bounds know no weights
        return (
            torch.autograd.grad(total, live)[0] if total.requires_grad else torch.zeros_like(live)
        )
