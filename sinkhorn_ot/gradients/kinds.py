"""What each number that a result tells depends on, directly: by pairs, potentials and weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sinkhorn_ot.problem import Index, Problem, shown
from sinkhorn_ot.results import Entropic, Parts, levelled
from sinkhorn_ot.sweeps import elasticity

from .pairs import Weights, row_sums


@shown
@dataclass(frozen=True, eq=False)
class Direct:
    """Derivatives of a loss with potentials, cost, weights, reg and penalties held apart.

    Attributes:
        pairs: What it makes of the pairs.
        f: Derivatives by the source potential besides, (B, n).
        g: Derivatives by the target potential besides, (B, m).
        parts: Derivatives by weights, reg and penalties besides.
    """

    pairs: Weights
    f: Tensor | None = None
    g: Tensor | None = None
    parts: Parts = field(default_factory=dict)


def plan(k: Entropic, by: Tensor) -> Direct:
    """Of the plan, (B, n, m)."""
    return Direct(Weights(of_plan=lambda rows, C: by[:, rows]))


def log_plan(k: Entropic, by: Tensor) -> Direct:
    """Of its logarithm, (B, n, m); what is -inf stays that."""
    p = k.problem

    def added(rows: Index, C: Tensor) -> Tensor:
        held = (p.a[:, rows, None] > 0) & (p.b > 0)[:, None, :] & (math.inf > C)
        return torch.where(held, by[:, rows], 0.0)

    return Direct(Weights(added=added))


def value_linear(k: Entropic, by: Tensor) -> Direct:
    """Of <P, C>, (B,)."""

    def dear(rows: Index, C: Tensor) -> Tensor:
        return by[:, None, None] * torch.where(math.inf > C, C, 0.0)

    return Direct(Weights(of_plan=dear, own=by))


def apply(k: Entropic, by: Tensor, x: Tensor) -> Direct:
    """Of P x for x (B, m, k)."""
    return Direct(Weights(of_plan=lambda rows, C: by[:, rows] @ x.mT))


def apply_transpose(k: Entropic, by: Tensor, x: Tensor) -> Direct:
    """Of P^T x for x (B, n, k)."""
    return Direct(Weights(of_plan=lambda rows, C: x[:, rows] @ by.mT))


def barycentric(k: Entropic, by: Tensor, y: Tensor) -> Direct:
    """Of the mean of y (B, m, k) under each row: weights of rows do not matter."""
    share = by / row_sums(k)[..., None]
    level = (share * k.conditional(y)).sum(-1, keepdim=True)
    return Direct(Weights(of_rows=lambda rows, C: share[:, rows] @ y.mT - level[:, rows]))


def source(k: Entropic, by: Tensor) -> Direct:
    """Of f, (B, n)."""
    return _potentials(k, by, None)


def target(k: Entropic, by: Tensor) -> Direct:
    """Of g, (B, m)."""
    return _potentials(k, None, by)


def _potentials(k: Entropic, s: Tensor | None, t: Tensor | None) -> Direct:
    """Of f or g, as they are levelled; potentials of points without weight answer the others'."""
    p = k.problem
    s, t = torch.zeros_like(p.a) if s is None else s, torch.zeros_like(p.b) if t is None else t
    parts: Parts = {}
    if p.exact:
        # f + l and g - l, where l = <b, g> / M
        share = ((s.sum(-1) - t.sum(-1)) / p.b.sum(-1))[:, None]
        t, parts["b"] = t + share * p.b, share * levelled(p, k.f, k.g)[1]
    # a point without weight has -kappa reg times the logarithm of its sum over the others
    of_rows, lost = _answers(p, 0, s, k.f, parts), _answers(p, 1, t, k.g, parts)
    rows = None if of_rows is None else (lambda index, C: of_rows[:, index, None])
    return Direct(
        Weights(of_rows=rows, lost=lost),
        torch.where(p.a > 0, s, 0.0),
        torch.where(p.b > 0, t, 0.0),
        parts,
    )


def _answers(p: Problem, side: int, by: Tensor, potential: Tensor, parts: Parts) -> Tensor | None:
    """Return weights of the pairs of points without weight, None where there are none."""
    weight, rho = (p.a, p.b)[side], p.relax[side]
    none = weight == 0
    if not bool((none & ((by != 0) | by.requires_grad)).any()):
        return None
    by, kappa = torch.where(none, by, 0.0), elasticity(p, side)
    if 0 < rho < math.inf:
        name, pull = ("rho_a", "rho_b")[side], (by * potential).sum(-1)
        parts[name] = parts.get(name, 0.0) + (pull * p.reg / (rho * (rho + p.reg))).sum()
    sums = 1.0 if math.isinf(rho) or not rho else (-potential / rho).exp()
    return -(kappa * p.reg)[:, None] * by / sums


Kind = Callable[..., Direct]

KINDS: dict[str, Kind] = {
    "apply": apply,
    "apply_transpose": apply_transpose,
    "barycentric": barycentric,
    "f": source,
    "g": target,
    "log_plan": log_plan,
    "plan": plan,
    "value_linear": value_linear,
}
