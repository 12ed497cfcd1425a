"""What a picture of a plan needs, of any size: mass between groups of points, largest entries."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import Cost, PointCloud, Problem, shown


# where entries are and what they move
Entries = tuple[Tensor, Tensor, Tensor]

# rows and columns of a picture at most, and entries that are looked at for the largest
_CELLS, _LOOK = 256, 1 << 22


@shown
@dataclass(frozen=True, eq=False)
class Sketch:
    """A plan of one problem as pictures need it.

    Attributes:
        weights: What the points of both sides were to hold, (n,) and (m,).
        masses: What they do hold.
        times: Multiplies the plan by a matrix, (m, k) to (n, k).
        entries: Returns the largest entries, at most so many.
        clouds: Where the points are, (n, d) and (m, d), if they are anywhere.
    """

    weights: tuple[Tensor, Tensor]
    masses: tuple[Tensor, Tensor]
    times: Callable[[Tensor], Tensor]
    entries: Callable[[int], Entries]
    clouds: tuple[Tensor, Tensor] | None = None

    def matrix(self) -> Tensor:
        """Return the mass between points, or between groups of neighbours where they are many."""
        left, right = (_groups(w) for w in self.masses)
        return left.mT @ self.times(right)


def _groups(like: Tensor) -> Tensor:
    """Return which of a picture's rows each point is in, as (n, k)."""
    n = len(like)
    count = min(n, _CELLS)
    group = torch.arange(n, device=like.device) * count // n
    return torch.nn.functional.one_hot(group, count).to(like.dtype)


def of_plan(P: Tensor, p: Problem) -> Sketch:
    """Return the sketch of a problem's plan that is there, dense or sparse, (n, m)."""
    return of_matrix(P, _weights(p), _clouds(p))


def of_matrix(
    P: Tensor, weights: tuple[Tensor, Tensor], clouds: tuple[Tensor, Tensor] | None
) -> Sketch:
    """Return the sketch of a plan between weights, dense or sparse, (n, m)."""

    def entries(most: int) -> Entries:
        if not P.is_sparse:
            return _largest(P.flatten(), most, lambda k: (k // P.shape[1], k % P.shape[1]))
        i, j = P._indices()
        return _largest(P._values(), most, lambda k: (i[k], j[k]))

    masses = P.sum(1), P.sum(0)
    rows, columns = (t.to_dense() if t.is_sparse else t for t in masses)
    return Sketch(weights, (rows, columns), lambda x: P @ x, entries, clouds)


def of_transport(r: Any) -> Sketch:
    """Return the sketch of a transport whose plan need not be formed."""
    p: Problem = r.problem

    def entries(most: int) -> Entries:
        # of many points some rows, evenly
        n, m = p.shape[1:]
        count = max(1, min(n, _LOOK // m))
        chosen = torch.linspace(0, n - 1, count, device=p.a.device).long()
        found = r.coupling.block(chosen, _rows(p.cost, chosen).to(p.work))[0].flatten()
        return _largest(found, most, lambda k: (chosen[k // m], k % m))

    masses = r.apply(torch.ones_like(p.b[0])), r.apply_transpose(torch.ones_like(p.a[0]))
    return Sketch(_weights(p), masses, r.apply, entries, _clouds(p))


def _rows(cost: Cost, chosen: Tensor) -> Tensor:
    if isinstance(cost, PointCloud):
        return replace(cost, x=cost.x[:, chosen]).rows(0, len(chosen))
    return cost.rows(0, cost.shape[0])[:, chosen]


def _largest(mass: Tensor, most: int, place: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Entries:
    found, at = mass.topk(min(most, len(mass)))
    return *place(at), found


def _weights(p: Problem) -> tuple[Tensor, Tensor]:
    a, b = p.a[0], p.b[0]
    return (a, b) if p.aside is None else (a + p.aside[0][0], b + p.aside[1][0])


def _clouds(p: Problem) -> tuple[Tensor, Tensor] | None:
    return (p.cost.x[0], p.cost.y[0]) if isinstance(p.cost, PointCloud) else None
