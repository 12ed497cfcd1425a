"""Points without weight carry nothing: a problem is solved without them, and they are put back."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import Cost, Dense, PointCloud, Problem
from sinkhorn_ot.results import Solution


# share of the entries that is left: above it a smaller cost saves less than it takes to select,
# and its copy more memory than the smaller kernel gives back; a few entries are copied at once
_STORED, _FEW = 0.5, 1 << 18
_ROWS = 64


@dataclass(frozen=True, eq=False)
class Support:
    """One problem among its points with weight.

    Attributes:
        problem: The problem without the others.
        rows: Where its source points stand among all, (n',).
        columns: Where its target points stand among all, (m',).
        shape: Number of all source and of all target points.
    """

    problem: Problem
    rows: Tensor
    columns: Tensor
    shape: tuple[int, int]

    def start(self, phi: Tensor | None, psi: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return what a start says of the points with weight."""
        return (
            None if phi is None else phi[:, self.rows],
            None if psi is None else psi[:, self.columns],
        )

    def whole(self, found: Solution) -> Solution:
        """Return the solution with the other points in place, where they carry nothing."""
        u, v = self.spread(found.u, found.v)
        return replace(found, u=u, v=v)

    def spread(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled potentials, (1, n') and (1, m'), among all points."""
        n, m = self.shape
        every_u, every_v = u.new_full((1, n), -math.inf), v.new_full((1, m), -math.inf)
        every_u[:, self.rows], every_v[:, self.columns] = u, v
        return every_u, every_v


def support(problem: Problem) -> Support | None:
    """Return the problem among its points with weight; None where all had better stay.

    They stay where few are without weight, in batches, whose problems differ in them, beside
    penalties, in costs that are read elsewhere, and on accelerators.
    """
    batch, n, m = problem.shape
    one = batch == 1 and problem.a.device.type == "cpu"
    if not one or not problem.exact:
        return None
    if min(float(problem.a.amin()), float(problem.b.amin())) > 0:
        return None
    rows, columns = problem.a[0].nonzero()[:, 0], problem.b[0].nonzero()[:, 0]
    cost = _among(problem.cost, rows, columns, len(rows) * len(columns) / (n * m))
    if cost is None:
        return None
    a, b = problem.a[:, rows], problem.b[:, columns]
    fewer = replace(problem, cost=cost, a=a, b=b, bounds=cost.validate())
    return Support(fewer, rows, columns, (n, m))


def _among(cost: Cost, rows: Tensor, columns: Tensor, left: float) -> Cost | None:
    """Return the cost among some points, a share `left` of it, where that is worth it."""
    if isinstance(cost, Dense) and (left <= _STORED or cost.C.numel() <= _FEW):
        return Dense(_entries(cost.C[0], rows, columns)[None])
    # points are few numbers
    if isinstance(cost, PointCloud):
        return PointCloud(cost.x[:, rows], cost.y[:, columns], cost.metric)
    return None


def _entries(C: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return C[rows][:, columns]; NumPy is quicker, but has no bfloat16."""
    if C.dtype == torch.bfloat16:
        return C[rows][:, columns]
    whole, i, j = C.numpy(), rows.numpy(), columns.numpy()
    out = np.empty((len(i), len(j)), whole.dtype)
    # so few rows that they stay in cache between the two
    for start in range(0, len(i), _ROWS):
        at = slice(start, start + _ROWS)
        np.take(whole[i[at]], j, axis=1, out=out[at], mode="clip")
    return torch.from_numpy(out)
