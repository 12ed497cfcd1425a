"""Costs too far apart to count in one unit: each problem alone, less the pairs no plan can use."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_ot.problem import Bounds, Dense, Problem

from .moments import unit
from .result import Found
from .together import together
from .walk import Goal


# how many times as large as others costs must be for digits of one unit not to hold both
_APART = 1e12


def found(p: Problem, alphas: list[float], goal: Goal) -> list[Found]:
    """Return where each problem of a batch ends.

    Raises:
        ValueError: If there is no plan of allowed pairs, or none within alpha.
    """
    names = [f" in problem {k}" if len(alphas) > 1 else "" for k in range(len(alphas))]
    gaps = [_gaps(C.double() - p.shift) for C in p.cost.whole] if isinstance(p.cost, Dense) else []
    if not any(gaps) and _alike(p):
        return together(p, alphas, goal, names)
    gaps = gaps if len(gaps) == len(alphas) else [g for g in gaps for _ in alphas]
    return [_alone(_one(p, k), gaps[k], x, goal, names[k]) for k, x in enumerate(alphas)]


def _alike(p: Problem) -> bool:
    """Say whether one unit holds the costs of all problems of a batch."""
    if p.shared or p.shape[0] == 1:
        return True
    sizes = [unit(_one(p, k)) for k in range(p.shape[0])]
    return max(sizes) <= _APART * min(sizes)


def _one(p: Problem, k: int) -> Problem:
    """Return problem `k` of a batch, with bounds of its own."""
    one = p.select(torch.tensor([k], device=p.a.device))
    return one if p.shared else replace(one, bounds=one.cost.validate())


def _alone(p: Problem, gaps: list[float], alpha: float, goal: Goal, name: str) -> Found:
    """Return where one problem ends, in the least unit that holds a plan within alpha.

    What a pair beyond a gap carries costs more than it could save on other ways. It could spare
    divergence: but alpha is rounded where it is compared, so reg is at most 1e8 times what the
    others' costs deviate, and of a pair that costs 1e4 times reg nothing is left.
    """
    for most in gaps:
        assert isinstance(p.cost, Dense)
        C = p.cost.whole.double()
        nearer = Dense(C.masked_fill(most + p.shift < C, math.inf))
        bounds = Bounds(p.bounds.low, most + p.shift, True)
        try:
            return together(replace(p, cost=nearer, bounds=bounds), [alpha], goal, [name])[0]
        except ValueError:
            # the nearer pairs leave no plan, or none within alpha
            continue
    return together(p, [alpha], goal, [name])[0]


def _gaps(costs: Tensor) -> list[float]:
    """Return the costs that the next larger one leaves far behind, from the least."""
    costs = costs[costs < math.inf]
    sizes = costs.abs()
    some = sizes[sizes > 0]
    if len(some) == 0 or not float(some.max()) > _APART * float(some.min()):
        return []
    costs = costs.sort().values
    largest = torch.maximum(costs.abs(), costs[0].abs())[:-1]
    wide = (largest > 0) & (costs[1:] > _APART * largest)
    return [float(x) for x in costs[:-1][wide]]
