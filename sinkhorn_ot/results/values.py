"""What the terms of both objectives come to, beside <P, C>: penalties, their conjugates, masses."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem

from .coupling import Entropic


def penalties(p: Problem, rows: Tensor, columns: Tensor) -> Tensor:
    """Return what the marginals cost, (B,), where they are not exact."""
    value = torch.zeros_like(p.reg)
    sides = zip((rows, columns), (p.a, p.b), p.relax, p.penalties, strict=True)
    for side, (mass, weight, rho, penalty) in enumerate(sides):
        if penalty is not None:
            value = value + penalty.value(mass, weight)
        if 0 < rho < math.inf:
            # in terms of the difference, which a large rho would magnify the rounding of
            off = torch.where(weight > 0, mass / weight - 1, 0.0)
            divergence = torch.special.xlog1py(1 + off, off) - off
            value = value + rho * p.summed(weight * divergence, side)
    return value


def conjugates(p: Problem, f: Tensor, g: Tensor) -> Tensor:
    """Return what the dual objective makes of potentials, (B,)."""
    value = torch.zeros_like(p.reg)
    sides = zip((p.a, p.b), (f, g), p.relax, p.penalties, strict=True)
    for side, (weight, potential, rho, penalty) in enumerate(sides):
        if penalty is not None:
            value = value + penalty.dual(potential, weight)
        elif math.isinf(rho):
            value = value + p.summed(potential * weight, side)
        elif rho > 0:
            # a point without weight may have a price whose pull is inf
            pull = torch.special.expm1(-potential / rho).masked_fill(weight == 0, 0.0)
            value = value - rho * p.summed(weight * pull, side)
    return value


def slack(p: Problem, rows: Tensor) -> Tensor:
    """Return what the masses of KL(P | a b^T) cost, (B,), for a plan with these row sums."""
    mass_a, mass_b = p.masses
    return p.reg * (mass_a * mass_b - p.summed(rows, 0))


def allowed(coupling: Entropic) -> tuple[Tensor, Tensor, Tensor]:
    """Return the nearest potentials that penalties allow, behind what the masses of KL cost there.

    A step beyond what they allow, however small, would have a dual of -inf.
    """
    p, f, g = coupling.problem, coupling.f, coupling.g
    near_f, near_g = (
        t if penalty is None else penalty.nearest(t)
        for t, penalty in zip((f, g), p.penalties, strict=True)
    )
    u = coupling.u + (near_f - f) / p.reg[:, None]
    v = coupling.v + (near_g - g) / p.reg[:, None]
    mass_a, mass_b = p.masses
    mass = replace(coupling, u=u, v=v, scaled=None).apply(torch.ones_like(p.b)[..., None])
    return p.reg * (mass_a * mass_b - mass.sum((-2, -1))), near_f, near_g


def stays(p: Problem) -> Tensor:
    """Return what the penalties are for points set aside, (B,)."""
    cost = torch.zeros_like(p.reg)
    sides = zip(p.relax, p.penalties, p.aside or (), strict=False)
    for side, (rho, penalty, weight) in enumerate(sides):
        if penalty is not None:
            cost = cost + penalty.value(torch.zeros_like(weight), weight)
        elif 0 < rho < math.inf:
            cost = cost + rho * p.summed(weight, side)
    return cost
