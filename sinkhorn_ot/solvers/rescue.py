"""What is tried where a solve misses: whether a plan exists, an exact start, other steps."""

from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_ot.exact import network_simplex, stranded
from sinkhorn_ot.problem import Problem
from sinkhorn_ot.results import Solution, Status, Stranded


# pairs up to which an exact plan takes no longer than the sweeps that were lost, and up to which
# whether a plan exists is looked at before any sweep
_PAIRS, _FEW = 1 << 22, 1 << 18


def small_enough(p: Problem) -> bool:
    """Say whether anything can be tried: one problem after another, on a CPU, in memory."""
    return p.exact and p.a.device.type == "cpu" and p.shape[1] * p.shape[2] <= _PAIRS


def cheap_to_ask(p: Problem) -> bool:
    """Say whether it costs next to nothing to learn beforehand that there is no plan."""
    few = p.shape[0] == 1 and p.shape[1] * p.shape[2] <= _FEW
    return few and p.bounds.forbids and small_enough(p)


def impossible(p: Problem, tol: float) -> Stranded | None:
    """Return why one problem has no plan, not even within `tol`; None if it may have one."""
    if not p.bounds.forbids:
        return None
    C = p.cost.rows(0, p.shape[1])[0]
    why = stranded(C.isfinite().numpy(), p.a[0].numpy(), p.b[0].numpy())
    # no plan misses its marginals by less than what is stranded
    return why if why and why.held - why.taken > tol * float(p.a.sum()) else None


def exact_start(p: Problem) -> Tensor | None:
    """Return scaled column potentials, (1, m), from the exact optimum of one problem."""
    rows, columns = p.a[0].nonzero()[:, 0], p.b[0].nonzero()[:, 0]
    C = p.cost.rows(0, p.shape[1])[0].to(torch.float64)[rows][:, columns]
    low, span = p.bounds.low, p.bounds.high - p.bounds.low
    if not span > 0:
        return None
    a, b = p.a[0, rows], p.b[0, columns]
    try:
        flow = network_simplex(
            ((C - low) / span).numpy(), (a / a.sum()).numpy(), (b / b.sum()).numpy(), None
        )
    except ImportError:
        return None
    v = torch.full_like(p.b, -torch.inf)
    v[0, columns] = torch.from_numpy(flow.g) * (span / p.reg[0]) + b.log()
    return v


def told_impossible(found: Solution, k: int, why: Stranded) -> Solution:
    """Return a solution that says that problem `k` has no plan."""
    status = list(found.status)
    status[k] = Status.INFEASIBLE
    return replace(found, status=status, notes=found.notes | {k: why})
