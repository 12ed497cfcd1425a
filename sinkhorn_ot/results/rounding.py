"""Feasible plans from nearly feasible ones.

Source: J. Altschuler, J. Weed, P. Rigollet, Near-linear time approximation algorithms for optimal
transport via Sinkhorn iteration, NeurIPS 2017, algorithm 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_ot.problem import Index, blocks, shown

from .coupling import Coupling, inner


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
        """Return its transport cost, (B,); inf if it needs a forbidden pair."""
        return inner(self.coupling.problem, self.block)

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
