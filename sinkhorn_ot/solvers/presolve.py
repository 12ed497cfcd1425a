"""A problem is posed the way that is easiest to solve, and its answer put back.

Points without weight carry nothing: it is solved without them. Rows and columns change places where
the columns had better be iterated on. A start loses its constant.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.problem import Cost, Dense, GridCost, PointCloud, Problem, Streamed, shown
from sinkhorn_ot.results import Solution
from sinkhorn_ot.sweeps import passes, weightless

from .steps import move_columns


Places = npt.NDArray[np.intp]

# share of the entries that is left: above it a smaller cost saves less than it takes to select,
# and its copy more memory than the smaller kernel gives back; a few entries are copied at once
STORED, FEW = 0.5, 1 << 18
_ROWS = 64


@shown
@dataclass(frozen=True, eq=False)
class Posed:
    """A problem as it is solved, and the way back.

    Attributes:
        problem: The problem to solve.
        v: Scaled column potentials to start from, (B, m), or None.
        support: The points with weight, where it is solved among those; None if among all.
        flipped: Whether rows and columns have changed places.
    """

    problem: Problem
    v: Tensor | None
    support: "Support | None"
    flipped: bool

    def undo(self, found: Solution) -> Solution:
        """Return a solution as one of the problem that was given."""
        if self.flipped:
            notes = {k: note.turned() for k, note in found.notes.items()}
            scaled = found.scaled and found.scaled.turned()
            found = replace(found, u=found.v, v=found.u, notes=notes, scaled=scaled)
        return found if self.support is None else self.support.whole(found)


def pose(problem: Problem, u: Tensor | None, v: Tensor | None) -> Posed:
    """Return a problem as it is best solved, from scaled potentials to start from, or None."""
    if problem.spread is not None:
        v = None if problem.relax[1] == 0 else _answered(problem, u, v)
        return Posed(problem, _levelled(problem, v), None, False)
    fewer = support(problem)
    if fewer is not None:
        problem, (u, v) = fewer.problem, fewer.start(u, v)
    flip = _flipped(problem, u, v)
    if flip:
        problem, v = problem.transposed(), u
    if problem.relax[1] == 0:
        # a free side's potential is zero, whatever the start says
        v = None
    return Posed(problem, _levelled(problem, v), fewer, flip)


def _answered(problem: Problem, u: Tensor | None, v: Tensor | None) -> Tensor | None:
    """Return column potentials to start from; where only those of rows are known, what they say."""
    if u is None or v is not None:
        return v
    log_b = problem.b.log()
    log_s = passes(problem, None).log_sum_columns(u) + log_b
    return move_columns(problem, torch.zeros_like(log_b), log_s, log_b) + log_b


def _flipped(problem: Problem, u: Tensor | None, v: Tensor | None) -> bool:
    """Say whether rows and columns had better change places.

    What is iterated on is the columns' potential: let it be the one that is known, else the free
    one, else that of a penalty which takes a step of its own, else the short one.
    """
    if isinstance(problem.cost, Streamed):
        return False
    if (u is None) != (v is None):
        return v is None
    if 0 in problem.relax:
        return problem.relax[1] > 0
    rows, columns = (penalty is not None for penalty in problem.penalties)
    if rows != columns:
        return rows
    return 4 * problem.shape[1] <= problem.shape[2]


def _levelled(problem: Problem, v: Tensor | None) -> Tensor | None:
    """Return a start less the mean of its potentials.

    With exact marginals it means nothing, but may be so large that it takes digits from the rest.
    """
    if v is None or not problem.one_mass:
        return v
    psi = weightless(v, problem.b.log())
    return v - (problem.b * psi).sum(-1, keepdim=True) / problem.b.sum(-1, keepdim=True)


@shown
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
    rows: Places
    columns: Places
    shape: tuple[int, int]

    def start(self, u: Tensor | None, v: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return what a start says of the points with weight."""
        return (
            None if u is None else u[:, torch.from_numpy(self.rows)],
            None if v is None else v[:, torch.from_numpy(self.columns)],
        )

    def whole(self, found: Solution) -> Solution:
        """Return the solution with the other points in place, where they carry nothing."""
        u, v = self.spread(found.u, found.v)
        notes = {k: note.among(self.rows, self.columns) for k, note in found.notes.items()}
        scaled = found.scaled and found.scaled.among(self.rows, self.columns, self.shape)
        return replace(found, u=u, v=v, notes=notes, scaled=scaled)

    def spread(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled potentials, (1, n') and (1, m'), among all points."""
        n, m = self.shape
        every_u, every_v = np.full((1, n), -math.inf), np.full((1, m), -math.inf)
        every_u[0, self.rows], every_v[0, self.columns] = u.numpy()[0], v.numpy()[0]
        return torch.from_numpy(every_u), torch.from_numpy(every_v)


def support(problem: Problem) -> Support | None:
    """Return the problem among its points with weight; None where all had better stay.

    They stay where few are without weight, in batches, whose problems differ in them, beside a free
    side and penalties other than KL, in costs that are read elsewhere, and on accelerators.
    """
    batch, n, m = problem.shape
    one = batch == 1 and problem.a.device.type == "cpu"
    if not one or 0 in problem.relax or problem.penalised:
        return None
    # by NumPy, whose calls are shorter
    a, b = problem.a.numpy()[0], problem.b.numpy()[0]
    if np.count_nonzero(a) == n and np.count_nonzero(b) == m:
        return None
    rows, columns = a.nonzero()[0], b.nonzero()[0]
    # beside penalties all that weighs may have been set aside
    if not len(rows) * len(columns):
        return None
    cost = _among(problem.cost, rows, columns, len(rows) * len(columns) / (n * m))
    if cost is None:
        return None
    a, b = torch.from_numpy(a[None, rows]), torch.from_numpy(b[None, columns])
    fewer = replace(problem, cost=cost, a=a, b=b, bounds=cost.validate(), aside=None, there=None)
    return Support(fewer, rows, columns, (n, m))


def _among(cost: Cost, rows: Places, columns: Places, left: float) -> Cost | None:
    """Return the cost among some points, a share `left` of it, where that is worth it."""
    if isinstance(cost, Dense) and rows[-1] + columns[-1] + 2 == len(rows) + len(columns):
        # the first of all are a view
        return cost._of(cost.C[:, : len(rows), : len(columns)])
    if isinstance(cost, Dense) and (left <= STORED or cost.C.numel() <= FEW):
        return cost._of(_entries(cost.C[0], rows, columns)[None])
    # points are few numbers
    if isinstance(cost, PointCloud):
        i, j = torch.from_numpy(rows), torch.from_numpy(columns)
        return replace(cost, x=cost.x[:, i], y=cost.y[:, j])
    # what is left of a small grid is none, and soon stored
    if isinstance(cost, GridCost) and math.prod(cost.shape) <= FEW:
        return Dense._of(_entries(cost.rows(0, cost.shape[0])[0], rows, columns)[None])
    return None


def _entries(C: Tensor, rows: Places, columns: Places) -> Tensor:
    """Return C[rows][:, columns]; NumPy is quicker, but has no bfloat16."""
    if C.dtype == torch.bfloat16:
        return C[torch.from_numpy(rows)][:, torch.from_numpy(columns)]
    whole = C.numpy()
    out = np.empty((len(rows), len(columns)), whole.dtype)
    # so few rows that they stay in cache between the two
    for start in range(0, len(rows), _ROWS):
        at = slice(start, start + _ROWS)
        whole[rows[at]].take(columns, axis=1, out=out[at], mode="clip")
    return torch.from_numpy(out)
