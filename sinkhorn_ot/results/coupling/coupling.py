"""A plan and its potentials, however it is held: as potentials alone, or as a matrix."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from sinkhorn_ot.problem import Index, Problem, blocks, shown
from sinkhorn_ot.sweeps import BySize, Sweep, elasticity, empty, exp_, exponent

from .scaled import Scaled


class Coupling(Protocol):
    """A plan of a flat problem. All tensors are in the problem's working dtype."""

    @property
    def problem(self) -> Problem:
        """The problem that the plan answers."""
        ...

    @property
    def f(self) -> Tensor:
        """Source potential in the units of the cost, (B, n), finite everywhere."""
        ...

    @property
    def g(self) -> Tensor:
        """Target potential in the units of the cost, (B, m), finite everywhere."""
        ...

    def block(self, rows: Index, C: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the plan's rows, (B, rows, m), given the cost of those rows; or write to `out`."""
        ...

    def log_block(self, rows: Index, C: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the logarithm of the plan's rows likewise."""
        ...

    def apply(self, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x for x (B, m, k), or P^T @ x for x (B, n, k)."""
        ...

    def conditional(self, y: Tensor, transpose: bool = False) -> Tensor:
        """Return the mean of y (B, m, k) under each row of the plan, (B, n, k).

        Transposed, return the sum of y (B, n, k) over rows as each shares it out, (B, m, k).
        """
        ...

    def linear(self) -> Tensor:
        """Return `<P, C>`, (B,)."""
        ...


@shown
@dataclass(frozen=True, eq=False)
class Entropic:
    """A plan given by its scaled potentials: P_ij = exp(u_i + v_j - C_ij / reg).

    Attributes:
        sweep: What makes passes over the cost.
        u: Row potentials, (B, n).
        v: Column potentials, (B, m).
        scaled: The plan of one problem, if its solver had it at hand.
    """

    sweep: Sweep
    u: Tensor
    v: Tensor
    scaled: Scaled | None = None

    @property
    def problem(self) -> Problem:
        """The problem that the plan answers."""
        return self.sweep.problem

    @property
    def f(self) -> Tensor:
        """Source potential; a point without weight gets the transform of the other side's."""
        return self._f

    @property
    def g(self) -> Tensor:
        """Target potential; a point without weight gets the transform of the other side's."""
        return self._g

    @cached_property
    def _f(self) -> Tensor:
        p = self.problem
        log_a = p.a.log()
        phi = self.u - log_a
        if _weightless(log_a):
            phi = torch.where(p.a > 0, phi, self._answer(0))
        return self._in_units(phi) + p.shifts[0]

    @cached_property
    def _g(self) -> Tensor:
        p = self.problem
        log_b = p.b.log()
        psi = self.v - log_b
        if _weightless(log_b):
            psi = torch.where(p.b > 0, psi, self._answer(1))
        return self._in_units(psi) + p.shifts[1]

    def _answer(self, side: int) -> Tensor:
        """Return the transform of the other side's potential; a free one is zero, come what may."""
        p, weight = self.problem, (self.problem.a, self.problem.b)[side]
        padding = p.there is not None and not bool((p.there[side] & (weight == 0)).any())
        if p.relax[side] == 0 or padding:
            return torch.zeros_like(weight)
        sums = self.sweep.log_sum_columns(self.u) if side else self.sweep.log_sum_rows(self.v)
        if (penalty := p.penalties[side]) is not None:
            return penalty.answer(sums, weight, p.reg[:, None])
        return -elasticity(p, side)[:, None] * sums

    def _in_units(self, scaled: Tensor) -> Tensor:
        # a point that no pair allows has no answer and carries nothing: any number will do
        return torch.nan_to_num(scaled * self.problem.reg[:, None], math.nan, 0.0, 0.0)

    def block(self, rows: Index, C: Tensor, out: Tensor | None = None) -> Tensor:
        """Return exp(u + v - C / reg) for those rows."""
        return exp_(self.log_block(rows, C, out))

    def log_block(self, rows: Index, C: Tensor, out: Tensor | None = None) -> Tensor:
        """Return u + v - C / reg for those rows."""
        p = self.problem
        C = C - p.shift if p.shift else C
        scale = (1.0 / p.reg)[:, None, None] if p.one_reg is None else 1.0 / p.one_reg
        return exponent(C, scale, self.u[:, rows], self.v[:, p.columns], out)

    def apply(self, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x without the plan."""
        return self.sweep.apply(self.u, self.v, x, transpose)

    def conditional(self, y: Tensor, transpose: bool = False) -> Tensor:
        """Return the mean of y under each row, rows without weight included.

        A row that no pair allows has none and gets zero.
        """
        log_sum = self.sweep.log_sum_rows(self.v)
        u = torch.where(log_sum > -math.inf, -log_sum, -math.inf)
        return self.sweep.apply(u, self.v, y, transpose)

    def linear(self) -> Tensor:
        """Return `<P, C>`."""
        return self.sweep.linear(self.u, self.v)


@shown
@dataclass(frozen=True, eq=False)
class Stored:
    """A plan held as a matrix, with potentials found by other means."""

    problem: Problem
    P: Tensor
    f: Tensor
    g: Tensor

    @property
    def full(self) -> Tensor:
        """The plan as a matrix."""
        return self.P

    def block(self, rows: Index, C: Tensor, out: Tensor | None = None) -> Tensor:
        """Return those rows of the matrix."""
        return self.P[:, rows] if out is None else out.copy_(self.P[:, rows])

    def log_block(self, rows: Index, C: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the logarithm of those rows."""
        return torch.log(self.P[:, rows], out=out)

    def apply(self, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        return (self.P.mT if transpose else self.P) @ x

    def conditional(self, y: Tensor, transpose: bool = False) -> Tensor:
        """Return the mean of y under each row; a row without mass has none and gets zero."""
        mass = self.P.sum(-1, keepdim=True)
        share = torch.where(mass > 0, 1 / mass.clamp(min=torch.finfo(y.dtype).tiny), 0.0)
        return self.P.mT @ (share * y) if transpose else share * (self.P @ y)

    def linear(self) -> Tensor:
        """Return `<P, C>`."""
        return inner(self.problem, self.block)


def _weightless(log_weight: Tensor) -> bool:
    """Say whether some point has no weight; there may be none at all."""
    return log_weight.numel() > 0 and float(log_weight.amin()) == -math.inf


def plan(coupling: Coupling) -> Tensor:
    """Return the plan of a coupling, (B, n, m), in the caller's dtype, row block by row block."""
    if isinstance(coupling, Entropic) and coupling.scaled is not None:
        return coupling.scaled.plan().to(coupling.problem.dtype)
    if isinstance(coupling, Stored):
        return coupling.full.to(coupling.problem.dtype)
    if isinstance(coupling, Entropic) and isinstance(coupling.sweep, BySize):
        return _by_size(coupling, coupling.sweep, plan, 0.0)
    return _formed(coupling, coupling.block)


def log_plan(coupling: Coupling) -> Tensor:
    """Return the logarithm of the plan of a coupling, (B, n, m), likewise."""
    if isinstance(coupling, Entropic) and isinstance(coupling.sweep, BySize):
        return _by_size(coupling, coupling.sweep, log_plan, -math.inf)
    return _formed(coupling, coupling.log_block)


def _by_size(k: Entropic, sweep: BySize, form: Callable[[Coupling], Tensor], rest: float) -> Tensor:
    """Form what groups of a ragged batch have, and fill in what none of a group has."""
    p = k.problem
    # zeros that nobody writes to take no memory
    out = torch.zeros(p.shape, dtype=p.dtype, device=p.a.device)
    out = out if rest == 0 else out.fill_(rest)
    for group, part in sweep.parts:
        few = form(Entropic(part, group.rows(k.u), group.columns(k.v)))
        out[group.index, : group.n, : group.m] = few
    return out


def _formed(coupling: Coupling, block: Callable[..., Tensor]) -> Tensor:
    p = coupling.problem
    out = None
    for rows, C in blocks(p.cost, p.shape[0], p.work):
        if isinstance(rows, slice) and C.shape[1] == p.shape[1]:
            # one block is all of it
            return block(rows, C).to(p.dtype)
        out = empty(p.held, p.dtype, p.a.device) if out is None else out
        if isinstance(rows, slice) and p.dtype == p.work:
            block(rows, C, out[:, rows])
        else:
            out[:, rows] = block(rows, C).to(p.dtype)
    # rows may all be held by others
    return torch.zeros(p.held, dtype=p.dtype, device=p.a.device) if out is None else out


def inner(problem: Problem, block: Callable[[Index, Tensor], Tensor]) -> Tensor:
    """Return `<P, C>`, (B,), for a plan given by row blocks; a pair without mass costs nothing."""

    def here() -> Tensor:
        total = torch.zeros_like(problem.reg)
        for rows, C in blocks(problem.cost, problem.shape[0], problem.work):
            P = block(rows, C)
            total += torch.where(P > 0, P * C, 0.0).sum((-2, -1))
        return total

    return problem.gathered(problem.tried(here, problem.reg))


def mass_optimality(p: Problem, side: int, mass: Tensor, potential: Tensor) -> Tensor:
    """Return what a marginal must be, (B, n) or (B, m).

    That is the weight, or weight * exp(-potential / rho) beside a KL penalty. Beside another one it
    is what the marginal would be after a plain step, which changes nothing at the solution alone.

    Args:
        p: The problem.
        side: 0 for rows, 1 for columns.
        mass: What the marginal is.
        potential: Its potential, in units of the cost.
    """
    rho, weight = p.relax[side], (p.a, p.b)[side]
    if math.isinf(rho):
        return weight
    if (penalty := p.penalties[side]) is not None:
        phi = potential / p.reg[:, None]
        offered = torch.where(mass > 0, (mass / weight).log() - phi, -math.inf)
        target = mass * (penalty.answer(offered, weight, p.reg[:, None]) - phi).exp()
        # of a mass below all numbers nobody knows what it would be
        return torch.where(mass > 0, target, mass)
    # a point without weight may have a price at which its share is inf
    return (weight * (-potential / rho).exp()).masked_fill(weight == 0, 0.0)


def masses(coupling: Coupling) -> tuple[Tensor, Tensor]:
    """Return the row sums (B, n) and column sums (B, m) of a plan."""
    p = coupling.problem
    one_a, one_b = torch.ones_like(p.a)[..., None], torch.ones_like(p.b)[..., None]
    return coupling.apply(one_b)[..., 0], coupling.apply(one_a, True)[..., 0]


def marginal_error(coupling: Coupling, marginals: tuple[Tensor, Tensor]) -> Tensor:
    """Return how far the marginals are from what they must be, in L1, relative to that, (B,)."""
    p = coupling.problem
    off = torch.zeros_like(p.reg)
    for side, (mass, potential) in enumerate(zip(marginals, (coupling.f, coupling.g), strict=True)):
        if p.relax[side] != 0:
            target = mass_optimality(p, side, mass, potential)
            far = p.summed((mass - target).abs(), side)
            off = off + relative(far, p.summed(target, side))
    return off


def levelled(p: Problem, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return potentials of one mass with <b, g> = 0, what they share in f; others as such.

    So the numbers of g are small where costs are all large, and keep their digits.
    """
    if not p.one_mass:
        return f, g
    level = ((p.b * g).sum(-1) / p.b.sum(-1))[:, None]
    return f + level, g - level


def relative(off: Tensor, whole: Tensor) -> Tensor:
    """Return off / whole, where nothing off of nothing is nothing, and no part of inf is known."""
    share = torch.where(off == 0, torch.zeros_like(off), off / whole)
    return share.masked_fill(whole == math.inf, math.inf)
