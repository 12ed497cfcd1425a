"""Plans that no bound on the divergence binds: those of exact transport."""

import warnings

import torch

from sinkhorn_ot.exact import solve_exact
from sinkhorn_ot.problem import Dense, Problem
from sinkhorn_ot.results import ConvergenceWarning

from .moments import unit
from .result import Found


def exactly(p: Problem, k: int) -> Found:
    """Return the exact plan of problem `k` of a batch whose masses are one.

    Raises:
        ValueError: If the forbidden pairs leave no plan.
    """
    one = p.select(torch.tensor([k], device=p.a.device))
    # in float64, whatever the caller's
    C = Dense(one.cost.rows(0, p.shape[1]).double())
    with warnings.catch_warnings():
        # the status tells, and the caller what to do about it
        warnings.simplefilter("ignore", ConvergenceWarning)
        r = solve_exact(C, one.a, one.b)
    P = r.plan[0].to(p.a)
    ratio = P / (one.a[0, :, None] * one.b[0, None, :])
    kl = torch.where(P > 0, P * torch.where(P > 0, ratio, 1.0).log(), 0.0).sum()
    lower, upper = ((float(x) - p.shift) / unit(p) for x in (r.dual_value, r.value_linear))
    return Found(
        unit=unit(p),
        theta=0.0,
        reg=0.0,
        u=one.a[0].log(),
        v=one.b[0].log(),
        plan=P,
        cost=upper,
        kl=float(kl),
        lower=min(lower, upper),
        upper=upper,
        error=float(r.marginal_error),
        n_iter=0,
        status=r.status,
        active=False,
    )
