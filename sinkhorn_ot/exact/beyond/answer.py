"""What is told of problems that are solved by pairs on demand: sparse plans, and their proof."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.exact.routes import STRANDED, NoPlan, alone
from sinkhorn_ot.problem import Problem, shown
from sinkhorn_ot.results import Sparse, Status, Transport

from .budget import Budget
from .closed import closed
from .coarser import Part
from .entries import Array, Places, at
from .search import Search


@shown
class _Told(NamedTuple):
    """The answer to one problem of a batch."""

    i: Places
    j: Places
    mass: Array
    paid: Array
    f: Array
    g: Array
    status: Status
    rounds: int
    missed: float


def solved_on_demand(p: Problem, budget: Budget, limit: int | None) -> Transport:
    """Return the answer to problems with exact marginals.

    Args:
        p: The problem.
        budget: What may be taken.
        limit: Pivots at most of each simplex.
    """
    a, b = p.a.double(), p.b.double()
    b = b * (a.sum(-1) / b.sum(-1))[:, None]
    home = replace(p, a=a, b=b, reg=p.reg.double())
    told = [_one(home, k, budget, limit) for k in range(p.shape[0])]
    return _joined(home, told)


def _one(p: Problem, k: int, budget: Budget, limit: int | None) -> _Told:
    one = p.select(torch.tensor([k], device="cpu")) if p.shape[0] > 1 else p
    a, b = (t[0].cpu().numpy() for t in (one.a, one.b))
    total = a.sum()
    search = Search(Part(one.cost, a / total, b / total), p.bounds.low, budget, limit)
    status = search.run()
    if status is Status.INFEASIBLE:
        status = _without_plan(p, k, search, total)
    x, g = search.found, search.settled()
    carried = np.isfinite(x.plan.cost)
    plan, mass = x.plan.kept(carried), x.mass[carried] * total
    off = sum(np.abs(np.bincount(t, mass, len(w)) - w).sum() for t, w in ((plan.i, a), (plan.j, b)))
    paid = mass @ at(one.cost, plan.i, plan.j)
    return _Told(plan.i, plan.j, mass, paid, x.f, g, status, x.rounds, off / total)


def _without_plan(p: Problem, k: int, search: Search, total: float) -> Status:
    """Raise if points prove that there is no plan; else say that none was found."""
    assert search.last is not None
    why = closed(search.part, search.last.f)
    if why is None or why.held - why.taken <= max(STRANDED, p.rounded):
        return Status.STALLED
    one, where = alone(p, k)
    raise NoPlan(one, where, why._replace(held=why.held * total, taken=why.taken * total))


def _joined(p: Problem, told: list[_Told]) -> Transport:
    on = p.a.device
    parts = zip(*told, strict=True)
    i, j, mass = (np.concatenate(next(parts)) for _ in range(3))
    k = np.repeat(np.arange(len(told)), [len(x.mass) for x in told])
    index = torch.from_numpy(np.stack([k, i, j])).to(on)
    P = torch.sparse_coo_tensor(
        index, torch.from_numpy(mass).to(on), p.shape, check_invariants=False
    )
    paid, f, g = (_stacked(next(parts), on) for _ in range(3))
    statuses = list(next(parts))
    rounds, missed = (_stacked(next(parts), on) for _ in range(2))
    return Transport(p, Sparse(p, P, f, g, paid), "exact: columns", statuses, rounds, missed)


def _stacked(arrays: Any, on: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(on)
