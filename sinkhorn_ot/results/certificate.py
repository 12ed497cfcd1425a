"""Proof of how good a plan is: a feasible dual below the optimum, a feasible plan above it.

Both bounds are on the unregularised problem, min <P, C> over P >= 0, P 1 = a, P^T 1 = b. By weak
duality any f, g with f_i + g_j <= C_ij give <f, a> + <g, b> <= min; such potentials come from any
others by a c-transform, f_i = min_j C_ij - g_j.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, blocks, shown
from sinkhorn_ot.sweeps import least_rows, placed

from .base import Result


@shown
@dataclass(frozen=True, eq=False)
class Certificate(Result):
    """Bounds on the unregularised optimum that anyone can check, up to the rounding of their sums.

    Attributes:
        lower: `<f, a> + <g, b>`, no larger than the optimum, shape of the batch.
        upper: Cost of a feasible plan, no smaller than the optimum; inf if that plan, made by
            rounding, needs a forbidden pair.
        f: Feasible dual potential, (..., n): f_i + g_j <= C_ij for every pair.
        g: Feasible dual potential, (..., m).
    """

    lower: Tensor
    upper: Tensor
    f: Tensor
    g: Tensor

    _tells = ("lower", "upper", "gap", "f", "g")
    _precise = "bounds that are rounded prove nothing"

    @property
    def _batch(self) -> torch.Size:
        return self.lower.shape

    @property
    def gap(self) -> Tensor:
        """Upper minus lower: how far the plan can be from optimal, in units of cost times mass."""
        return self.upper - self.lower


Difference = Callable[[Tensor, Tensor], Tensor]


def transform_rows(p: Problem, g: Tensor, minus: Difference = torch.sub) -> Tensor:
    """Return min_j C_ij - g_j, (B, n); a row that no pair allows gets zero."""

    def least() -> Tensor:
        if (cost := placed(p)) is not None:
            return least_rows(cost, g[0], minus)[None]
        f = torch.empty_like(p.a)
        for rows, C in blocks(p.cost, p.shape[0], p.work):
            f[:, rows] = minus(C, g[:, None, p.columns]).amin(-1)
        return f

    f = p.least_beside(p.tried(least, p.a))
    return f.masked_fill(f == math.inf, 0.0)


def transform_columns(p: Problem, f: Tensor, minus: Difference = torch.sub) -> Tensor:
    """Return min_i C_ij - f_i, (B, m); a column that no pair allows gets zero."""

    def least() -> Tensor:
        if (cost := placed(p)) is not None:
            return least_rows(cost.transposed(), f[0], minus)[None]
        g = torch.full_like(p.b, math.inf)
        for rows, C in blocks(p.cost, p.shape[0], p.work):
            own = g[:, p.columns]
            g[:, p.columns] = torch.minimum(own, minus(C, f[:, rows, None]).amin(-2))
        return g

    g = p.least(p.least_beside(p.tried(least, p.b)))
    return g.masked_fill(g == math.inf, 0.0)


def below(C: Tensor, t: Tensor) -> Tensor:
    """Return C - t rounded down, so that t plus the difference never exceeds C by a digit."""
    d = C - t
    # what rounding took from the difference, exactly (Knuth, two-sum)
    part = d - C
    error = (C - (d - part)) - (t + part)
    return torch.where(error < 0, torch.nextafter(d, torch.full_like(d, -math.inf)), d)


def dual_value(p: Problem, f: Tensor, g: Tensor) -> Tensor:
    """Return <f, a> + <g, b>, (B,)."""
    return p.summed(f * p.a, 0) + p.summed(g * p.b, 1)


def feasible_duals(p: Problem, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best feasible potentials that two c-transforms of f or of g give.

    A point without weight binds nobody while the other side is transformed and is set last.
    """
    first = _blank(p, *_polish(p, g=g.masked_fill(p.b <= 0, -math.inf)))
    second = _blank(p, *_polish(p, f=f.masked_fill(p.a <= 0, -math.inf)))
    better = (dual_value(p, *first) >= dual_value(p, *second))[:, None]
    return torch.where(better, first[0], second[0]), torch.where(better, first[1], second[1])


def _polish(p: Problem, f: Tensor | None = None, g: Tensor | None = None) -> tuple[Tensor, Tensor]:
    if g is not None:
        f = _unbound(p, transform_rows(p, g), 0)
        return f, transform_columns(p, f, below)
    assert f is not None
    g = _unbound(p, transform_columns(p, f), 1)
    return transform_rows(p, g, below), g


def _blank(p: Problem, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return potentials that are zero in the padding."""
    if p.there is None:
        return f, g
    return torch.where(p.there[0], f, 0.0), torch.where(p.there[1], g, 0.0)


def _unbound(p: Problem, potential: Tensor, side: int) -> Tensor:
    """Return a potential that binds nobody in the padding."""
    there = p.there
    return potential if there is None else potential.masked_fill(~there[side], -math.inf)
