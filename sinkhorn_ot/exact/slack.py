"""Marginals that may be missed: one more row and column take what no pair moves.

So a stated mass, and penalties of total variation, are exact transport between one point more on
each side, and its plan and potentials say those of what was asked (for a stated mass: L. Chapel,
M. Alaya, G. Gasso, Partial optimal transport with applications on positive-unlabeled learning,
NeurIPS 2020, section 3).
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import TV, Bounds, Dense, Problem, shown
from sinkhorn_ot.results import Stranded

from .proof import Array, Index, lowered
from .routes import NoPlan


@shown
@dataclass(frozen=True, eq=False)
class Slack:
    """A problem whose marginals may be missed, and what missing them costs.

    Attributes:
        problem: The problem, in float64 on the CPU, with stored costs.
        prices: What a unit too few or too many costs at each point of both sides, (B, n) and
            (B, m); None if a stated mass is moved. Points without weight take none.
    """

    problem: Problem
    prices: tuple[Tensor, Tensor] | None

    def widened(self) -> Problem:
        """Return the problem with a row and a column more, which has exact marginals."""
        p = self.problem
        C = p.cost.rows(0, p.shape[1]).expand(p.shape)
        a, b = p.a.sum(-1, keepdim=True), p.b.sum(-1, keepdim=True)
        if self.prices is None:
            moved = p.penalties[0].mass.to(p.a)  # type: ignore[union-attr]
            right, below = torch.zeros_like(p.a), torch.zeros_like(p.b)
            # what both points more would exchange would have to be moved by others
            finite = C[math.inf > C]
            low, high = float(finite.min()), float(finite.max())
            corner = max(high - low, high, -2 * low) or 1.0
            more = (b - moved).clamp(min=0), (a - moved).clamp(min=0)
        else:
            (right, below), corner = self._detours()[0], 0.0
            # where nobody has a partner, both points more have one another
            none = (a + b == 0).to(a)
            more = b + none, a + none
        right = torch.cat([right, right.new_full((len(right), 1), corner)], -1)
        wide = torch.cat([torch.cat([C, below[:, None]], 1), right[:, :, None]], 2)
        a, b = torch.cat([p.a, more[0]], -1), torch.cat([p.b, more[1]], -1)
        return _exact(p, wide, a, b * (a.sum(-1) / b.sum(-1))[:, None])

    def narrowed(self, P: Array, f: Array, g: Array) -> tuple[Array, Array, Array]:
        """Return the plan and the potentials of the problem from those with a row and column more.

        Args:
            P: Plans, (B, n + 1, m + 1).
            f: Feasible source potentials, (B, n + 1).
            g: Feasible target potentials, (B, m + 1).
        """
        plan = np.ascontiguousarray(P[:, :-1, :-1])
        if self.prices is None:
            return plan, f[:, :-1], g[:, :-1]
        p = self.problem
        C = p.cost.rows(0, p.shape[1])
        _, (to, by) = self._detours()
        _along(plan, P[:, :-1, -1], to.numpy(), 2)
        _along(plan, P[:, -1, :-1], by.numpy(), 1)
        return plan, *self._potentials(C.numpy(), g[:, :-1] + f[:, -1:])

    def told(self, none: NoPlan) -> ValueError:
        """Return why there is no plan in words of the points given, without those added."""
        a, b = (w[0].numpy() for w in (none.problem.a, none.problem.b))
        why, rows, columns = none.why, none.why.rows, none.why.columns
        if len(a) - 1 in rows:
            # then all others hold too little for the columns that only they may use
            rows, columns = _others(rows, a), _others(columns, b)
            held, taken = float(b[columns].sum()), float(a[rows].sum())
            said = Stranded(columns, rows, held, taken, ("columns", "rows"))
        else:
            columns = columns[columns < len(b) - 1]
            said = Stranded(rows, columns, why.held, float(b[columns].sum()))
        if self.prices is not None:
            return NoPlan(none.problem, none.where, said)
        moved = float(a[:-1].sum() - b[-1])
        return ValueError(
            f"mass must be at most what allowed pairs can move{none.where}, "
            f"{moved - why.held + why.taken:.9g}, got {moved:.9g}: {said}"
        )

    def _potentials(self, C: Array, g: Array) -> tuple[Array, Array]:
        """Return feasible potentials within the prices, from those of targets with weight.

        Who is set aside stays at its price. Points without weight bind nobody, and come last.
        """
        assert self.prices is not None
        p = self.problem
        rho_a, rho_b = (t.numpy() for t in self.prices)
        aside = p.aside or (torch.zeros_like(p.a), torch.zeros_like(p.b))
        left, right = (t.cpu().numpy() > 0 for t in aside)
        bare = (p.b.numpy() <= 0) & ~right
        g = np.where(right, rho_b, np.clip(g, -rho_b, rho_b))
        f = np.minimum(rho_a, lowered(C, np.where(bare, -math.inf, g)))
        f = np.where(left, rho_a, f)
        if bare.any():
            g = np.where(bare, np.minimum(rho_b, lowered(C.transpose(0, 2, 1), f)), g)
        return f, g

    def _detours(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return the least price of a unit too few at each point, and by which pair, -1 if by none.

        It is missed there, or it is a unit too many at the other end of a pair, if that has weight.
        """
        assert self.prices is not None
        p = self.problem
        C, (rho_a, rho_b) = p.cost.rows(0, p.shape[1]).expand(p.shape), self.prices
        found = []
        for costs, own, other in (
            (C, rho_a, _too_many(p.b, rho_b)),
            (C.mT, rho_b, _too_many(p.a, rho_a)),
        ):
            through = (costs + other[:, None, :]).min(-1)
            less = through.values < own
            at = torch.where(less, through.indices, -1)
            found.append((torch.where(less, through.values, own), at))
        (right, to), (below, by) = found
        return (right, below), (to, by)


def slack_of(p: Problem) -> Slack:
    """Return what missing the marginals costs; raise where that is no linear program.

    Args:
        p: The problem, in float64 on the CPU.
    """
    if p.one_mass:
        return Slack(p, None)
    first, second = (_price(p, side) for side in (0, 1))
    C = p.cost.rows(0, p.shape[1])
    both = _too_many(p.a, first)[:, :, None] + _too_many(p.b, second)[:, None, :]
    least = (C + both).amin((-2, -1))
    if bool((least < 0).any()):
        raise ValueError(
            "unbalanced must be at least what a pair earns, or there is no least value: some pair "
            f"costs {-float(least.min()):.6g} less than both prices together are above zero"
        )
    return Slack(p, (first, second))


def _price(p: Problem, side: int) -> Tensor:
    """Return what a unit too few or too many costs at each point of a side."""
    weight, rho, penalty = (p.a, p.b)[side], p.relax[side], p.penalties[side]
    if isinstance(penalty, TV):
        price: Tensor = penalty.rho.to(weight)
        return price
    if penalty is None and rho in (0.0, math.inf):
        return torch.full_like(weight, rho)
    kind = f"a KL penalty of {rho:g}" if penalty is None else type(penalty).__name__
    raise ValueError(
        "unbalanced must be TV(rho), 0 or None for each side of solve_exact, which solves linear "
        f"programs, got {kind} for {'ab'[side]}: use solve"
    )


def _too_many(weight: Tensor, rho: Tensor) -> Tensor:
    """Return what a unit too many costs: points without weight take none, as in KL(P | a b^T)."""
    return torch.where(weight > 0, rho, math.inf)


def _others(index: Index, weight: Array) -> Index:
    """Return all other points that have weight."""
    left = weight > 0
    left[index] = False
    return np.flatnonzero(left)


def _along(plan: Array, mass: Array, at: Index, axis: int) -> None:
    """Move in a plan what went along a detour: row by row (axis 2), or column by column (1)."""
    k, i = np.nonzero((at >= 0) & (mass > 0))
    pairs: Any = (k, i, at[k, i]) if axis == 2 else (k, at[k, i], i)
    plan[pairs] += mass[k, i]


def _exact(p: Problem, C: Tensor, a: Tensor, b: Tensor) -> Problem:
    """Return the problem with other costs and weights, and exact marginals."""
    forbids = bool(C.isinf().any())
    finite = C[math.inf > C] if forbids else C
    bounds = Bounds(float(finite.min()), float(finite.max()), forbids)
    known: dict[str, Any] = {"relax": (math.inf, math.inf), "penalties": (None, None)}
    return replace(p, cost=Dense(C), a=a, b=b, bounds=bounds, aside=None, shift=0.0, **known)
