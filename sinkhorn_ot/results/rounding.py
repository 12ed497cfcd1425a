"""Feasible plans from nearly feasible ones.

Source: J. Altschuler, J. Weed, P. Rigollet, Near-linear time approximation algorithms for optimal
transport via Sinkhorn iteration, NeurIPS 2017, algorithm 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_ot.problem import Index, PointCloud, blocks, shown
from sinkhorn_ot.sweeps import Drops

from .coupling import Coupling, Entropic, inner


# passes that a plan is rounded and its cost found by
_PASSES = 5


@shown
@dataclass(frozen=True, eq=False)
class Rounded:
    """The feasible plan diag(x) P diag(y) + left right^T, kept as its parts."""

    coupling: Coupling
    x: Tensor
    y: Tensor
    left: Tensor
    right: Tensor

    def block(self, rows: Index, C: Tensor) -> Tensor:
        """Return those rows of the feasible plan, given their cost."""
        own = self.coupling.problem.columns
        P = self.x[:, rows, None] * self.coupling.block(rows, C) * self.y[:, None, own]
        return P + self.left[:, rows, None] * self.right[:, None, own]

    def linear(self) -> Tensor:
        """Return its transport cost, (B,), or a little more; inf if it needs a forbidden pair."""
        k = self.coupling
        if isinstance(k, Entropic) and isinstance(k.sweep, Drops):
            return self._by_parts(k, k.sweep)
        return inner(self.coupling.problem, self.block)

    def _by_parts(self, k: Entropic, drops: Drops) -> Tensor:
        """Return the cost of what is scaled and of what is spread, and of all that was left out."""
        p = k.problem
        assert isinstance(p.cost, PointCloud)
        scaled = k.sweep.linear(k.u + self.x.log(), k.v + self.y.log())
        sides = zip((self.left, self.right), p.cost.factors, strict=True)
        # the cost of left right^T is a product of sums over points
        left, right = (torch.matmul(w[:, None], t)[:, 0] for w, t in sides)
        spread = (left * right).sum(-1)
        # passes may have left out different pairs: what is moved to make up for it costs no more
        return scaled + spread + _PASSES * drops.dropped * p.bounds.high * p.a.sum(-1)

    def plan(self) -> Tensor:
        """Return the feasible plan, (B, n, m)."""
        p = self.coupling.problem
        P = p.a.new_empty(p.held)
        for rows, C in blocks(p.cost, p.shape[0], p.work):
            P[:, rows] = self.block(rows, C)
        return P


def feasible(coupling: Coupling) -> Rounded:
    """Scale rows and columns down to their weights, then spread what is missing."""
    p = coupling.problem
    x = _shrink(p.a, coupling.apply(torch.ones_like(p.b)[..., None])[..., 0])
    y = _shrink(p.b, coupling.apply(x[..., None], transpose=True)[..., 0])
    rows = x * coupling.apply(y[..., None])[..., 0]
    columns = y * coupling.apply(x[..., None], transpose=True)[..., 0]
    left, right = (p.a - rows).clamp_(min=0), (p.b - columns).clamp_(min=0)
    missing = p.summed(left, 0)[:, None]
    # rounding may leave columns short where no row is
    return Rounded(coupling, x, y, left, torch.where(missing > 0, right / missing, 0.0))


def _shrink(weight: Tensor, mass: Tensor) -> Tensor:
    """Return the factor, at most one, that brings `mass` down to `weight`."""
    return torch.where(mass > weight, weight / mass, 1.0)
