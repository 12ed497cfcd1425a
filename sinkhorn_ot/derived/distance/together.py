"""Where each problem of a batch ends: independent, exact, or on the path between the two."""

import math

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem
from sinkhorn_ot.results import Status

from .exactly import exactly
from .moments import Moments, independent, measure, settled, unit
from .result import Found
from .walk import Goal, Walker, solved, walk


_EPS = torch.finfo(torch.float64).eps
# theta at which a plan is one of least divergence to all digits
_NEAR = 1e-9
# marginal error of such plans, and the least that is asked for where alpha is as close as that
_FINE, _FINEST, _CLOSE = 1e-9, 1e-14, 1e-3
# deviation of a cost from x (+) y, relative to its largest entry, that is rounding
_SAME = 16 * _EPS
# rise of the divergence by which the cost falls less than rounding: it falls as the root
_NOTHING = _EPS**2 / 2


def together(p: Problem, alphas: list[float], goal: Goal, names: list[str]) -> list[Found]:
    """Return where each problem ends; `names` follow what is told of one.

    Raises:
        ValueError: If there is no plan of allowed pairs, or none within alpha.
    """
    base, trusted = _nearest(p, goal.max_iter, min(goal.tol, _FINE))
    if any(abs(alpha - x) < _CLOSE * x for alpha, x in zip(alphas, base.kl.tolist(), strict=True)):
        # whether it is enough is decided by digits that were not asked for
        finer, _ = _nearest(p, goal.max_iter, _FINEST)
        base = finer if bool((finer.error <= base.error).all()) else base
    least_entropy = torch.minimum(_entropy(p.a), _entropy(p.b)).tolist()
    answers: dict[int, Found] = {}
    walkers: dict[int, Walker] = {}
    for k, alpha in enumerate(alphas):
        if not trusted[k]:
            # says so where no plan exists
            exactly(p, k)
        _feasible(alpha, float(base.kl[k]), names[k])
        flat = float(base.variance[k]) <= _SAME**2
        if flat or alpha - float(base.kl[k]) <= _NOTHING:
            answers[k] = _independent(base, k, alpha, flat, unit(p))
        elif alpha >= least_entropy[k]:
            answers[k] = exactly(p, k)
        else:
            walkers[k] = Walker(p, k, alpha, base, goal)
    walk(p, walkers, base)
    for k, walker in walkers.items():
        assert walker.found is not None
        answers[k] = walker.found
    return [answers[k] for k in range(len(alphas))]


def _nearest(p: Problem, max_iter: int, tol: float) -> tuple[Moments, list[bool]]:
    """Return what is known of the plans of least divergence, and whether each was found."""
    if not p.bounds.forbids:
        return independent(p), [True] * p.shape[0]
    # at a reg far above the cost allowed pairs are alike
    theta = torch.full_like(p.reg, _NEAR)
    s = solved(p, theta, None, tol, max_iter)
    nearest = settled(p, measure(p, theta, s.u, s.v))
    return nearest, [x is Status.CONVERGED for x in s.status]


def _feasible(alpha: float, least: float, where: str) -> None:
    # of independence itself rounding may leave more than nothing
    if alpha < least * (1 - 1e-12) - _EPS:
        why = "" if alpha else ": a b^T itself uses forbidden pairs, and costs inf"
        raise ValueError(
            f"alpha must be at least {least:.9g}, the divergence of the nearest plan on allowed "
            f"pairs, got {alpha:.9g}{where}{why}"
        )


def _independent(base: Moments, k: int, alpha: float, flat: bool, unit: float) -> Found:
    """Return the plan of least divergence; where all plans cost the same, it will do."""
    cost, rise = float(base.cost[k]), alpha - float(base.kl[k])
    reg = math.sqrt(float(base.variance[k]) / (2 * rise)) if rise > 0 else math.inf
    return Found(
        unit=unit,
        theta=float(base.theta[k]),
        reg=0.0 if flat else reg,
        u=base.u[k],
        v=base.v[k],
        cost=cost,
        kl=float(base.kl[k]),
        lower=cost,
        upper=cost,
        error=float(base.error[k]),
        n_iter=base.work,
        status=Status.CONVERGED,
        active=not flat,
    )


def _entropy(w: Tensor) -> Tensor:
    """Return -sum w log w, (B,)."""
    return -torch.xlogy(w, w).sum(-1)
