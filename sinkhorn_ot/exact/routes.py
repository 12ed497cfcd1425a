"""Whether allowed pairs carry all weights: what they carry, or the points that prove why not."""

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem
from sinkhorn_ot.results import Stranded

from .engines import network_simplex
from .hall import stranded
from .proof import Array, Index, Mask
from .rounds import costs


# mass, relative to all, that forbidden pairs may strand before there is no plan, where weights were
# not rounded by more
STRANDED = 1e-8


class NoPlan(ValueError):
    """Forbidden pairs leave one problem no plan.

    Attributes:
        problem: The problem, alone.
        where: Which one it is of a batch, as errors call it.
        why: The points that prove it.
    """

    def __init__(self, problem: Problem, where: str, why: Stranded) -> None:
        super().__init__(f"cost must leave a plan{where}: {why}, so no plan exists")
        self.problem, self.where, self.why = problem, where, why


def alone(batch: Problem, k: int) -> tuple[Problem, str]:
    """Return one problem, and how errors call it."""
    where = f" in problem {k}" if batch.shape[0] > 1 else ""
    return batch.select(torch.tensor([k], device="cpu")), where


def routable(p: Problem, where: str) -> tuple[Tensor, Tensor]:
    """Return the weights that allowed pairs can carry: a and b, but for rounding.

    Raises:
        ValueError: If more than rounding is stranded; by Hall's theorem some rows then prove it.
    """
    forbidden = costs(p)[0].isinf().numpy()
    if not forbidden.any():
        return p.a, p.b
    not_too_narrow(p, where)
    a, b = p.a[0].numpy(), p.b[0].numpy()
    P = network_simplex(forbidden.astype(float), a / a.sum(), b / a.sum(), None).P * a.sum()
    left = np.where(forbidden, P, 0.0).sum(1)
    if left.sum() > (excuse := _excuse(p)):
        rows, columns = _too_narrow(forbidden, P, left > excuse / len(a))
        raise NoPlan(p, where, Stranded(rows, columns, a[rows].sum(), b[columns].sum()))
    P = torch.from_numpy(np.where(forbidden, 0.0, P))[None]
    return P.sum(-1), P.sum(-2)


def not_too_narrow(p: Problem, where: str) -> None:
    """Raise where a flow in whole numbers proves that far more than rounding is stranded.

    That takes far less time than the simplex.
    """
    allowed = ~costs(p)[0].isinf().numpy()
    if allowed.all():
        return
    why = stranded(allowed, p.a[0].numpy(), p.b[0].numpy())
    if why is not None and why.held - why.taken > _excuse(p):
        raise NoPlan(p, where, why)


def _excuse(p: Problem) -> float:
    """Return the mass that may be stranded and taken for rounding."""
    return max(STRANDED, p.rounded) * float(p.a.sum())


def _too_narrow(forbidden: Mask, P: Array, rows: Mask) -> tuple[Index, Index]:
    """Grow stranded rows to a set whose columns serve nobody else, and are full."""
    while True:
        columns = (~forbidden[rows]).any(0)
        grown = rows | (P[:, columns] > 0).any(1)
        if (grown == rows).all():
            return np.flatnonzero(rows), np.flatnonzero(columns)
        rows = grown
