"""How the column potentials move, given what a plain Sinkhorn step would do to them.

An acceleration is a small frozen description; `start` gives the state of one run over a flat batch.
Every state is a function of the iterate and mends itself: a step that made the error grow is taken
back.
"""

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks, shown
from sinkhorn_ot.sweeps import Sweep

from .state import State, holdable, pick


@shown
class Iterate(NamedTuple):
    """Where a run stands after a sweep.

    Attributes:
        psi: Column potentials g / reg, shape (B, m).
        residual: What a plain step would add to them, shape (B, m).
        error: Marginal error at `psi`, shape (B,).
        u: Row potentials that answer `psi`, shape (B, n).
        sweep: What made the sweep; a step may ask it for more than the residual.
    """

    psi: Tensor
    residual: Tensor
    error: Tensor
    u: Tensor
    sweep: Sweep


class Steps(Protocol):
    """The state of one accelerated run over B problems."""

    def __call__(self, at: Iterate) -> Tensor:
        """Return the next column potentials, (B, m)."""
        ...

    def select(self, index: Tensor) -> "Steps":
        """Keep the problems at `index`."""
        ...


class Acceleration(Protocol):
    """A way to accelerate a fixed-point iteration.

    One that serves exact marginals only says so: its attribute `needs_exact` is true.
    """

    def start(self, weight: Tensor) -> Steps:
        """Return the state of a run whose columns weigh `weight`, shape (B, m)."""
        ...


def needs_exact(acceleration: Acceleration) -> bool:
    """Whether an acceleration serves exact marginals only; one that does not say serves all."""
    return bool(getattr(acceleration, "needs_exact", False))


# how many times the residual an extrapolation may go
_FARTHEST = 1e6


@holdable
@dataclass(frozen=True)
class Plain:
    """No acceleration: Sinkhorn's own step."""

    def start(self, weight: Tensor) -> Steps:
        """Return a state without memory."""
        return _PlainSteps()


class _PlainSteps(State):
    def __call__(self, at: Iterate) -> Tensor:
        return at.psi + at.residual


@holdable
@dataclass(frozen=True)
class Anderson:
    """Anderson acceleration: extrapolate to where the last residuals, combined, are smallest.

    Sound only near the solution, so that it is guarded: an error that grew beyond `growth` times
    the best sends the problem back to its best potentials, from where it takes `wait` steps of
    `fallback` before it extrapolates again, twice as many after each further failure.

    Source: D. G. Anderson, Iterative procedures for nonlinear integral equations, J. ACM 1965.

    Args:
        memory: Differences of past steps kept.
        growth: An error this many times the best so far is a failure.
        wait: Steps of the fallback after the first failure.
        begin: Marginal error below which extrapolation begins.
    """

    memory: int = 15
    growth: float = 2.0
    wait: int = 4
    begin: float = 0.1

    def __post_init__(self) -> None:
        checks.count("memory", self.memory)
        checks.count("wait", self.wait)
        for name in ("growth", "begin"):
            checks.positive(name, getattr(self, name))

    def start(self, weight: Tensor, every: int = 1) -> Steps:
        """Return a state without history.

        Args:
            weight: What columns weigh, (B, m).
            every: How far apart those are whose residuals are compared.
        """
        return _AndersonSteps(self, weight / weight.sum(-1, keepdim=True), every)


class _AndersonSteps(State):
    def __init__(self, options: Anderson, weight: Tensor, every: int) -> None:
        self._options, self._weight = options, weight
        batch, m = weight.shape
        # more differences than dimensions have combinations to spare
        memory = min(options.memory, max(1, m - 1))
        # where plain steps lead, and the residuals of a sample
        self._some = slice(None, None, every)
        self._weights = weight[:, self._some]
        self._plain, self._residuals = (_Differences(memory, t) for t in (weight, self._weights))
        self._last: tuple[Tensor, Tensor] | None = None
        self._fallback: Steps | None = None
        self._best = weight.new_full((batch,), math.inf)
        self._best_psi = self._best_residual = torch.zeros_like(weight)
        self._waiting = torch.zeros_like(self._best)
        self._penalty = torch.full_like(self._best, options.wait)

    def __call__(self, at: Iterate) -> Tensor:
        if at.sweep.problem.one_mass:
            # a constant changes nothing, so nothing keeps a combination from making it huge
            centre = (self._weight * at.residual).sum(-1, keepdim=True)
            at = at._replace(residual=at.residual - centre)
        failed = ~(at.error <= self._options.growth * self._best) & (self._waiting <= 0)
        better = at.error < self._best
        self._best = torch.minimum(at.error, self._best)
        self._best_psi = pick(better, at.psi, self._best_psi)
        self._best_residual = pick(better, at.residual, self._best_residual)
        psi = pick(failed, self._best_psi, at.psi)
        residual = pick(failed, self._best_residual, at.residual)
        self._waiting = pick(failed, self._penalty, self._waiting - 1)
        self._penalty = pick(failed, 2 * self._penalty, self._penalty)
        self._remember(psi, residual, failed)
        dr = self._residuals.held
        used = dr.shape[1]
        # residuals that do not change say where to go and not how far: gather speed there
        reach = residual.abs().amax(-1)
        changed = dr.abs().amax((1, 2)) if used else torch.zeros_like(reach)
        patient = (self._waiting > 0) | (at.error > self._options.begin)
        patient |= changed <= reach / _FARTHEST
        if used == 0 or _all_any(patient)[0]:
            return self._fallen_back(at._replace(psi=psi, residual=residual))
        mix = self._combination(dr, residual[:, self._some])[:, None, :]
        best = torch.matmul(mix, self._plain.held)[:, 0].neg_().add_(psi).add_(residual)
        # parts that no allowed pair joins have a constant each
        patient |= (best - psi).abs().amax(-1) > _FARTHEST * reach
        every, some = _all_any(patient)
        if every:
            return self._fallen_back(at._replace(psi=psi, residual=residual))
        if not some:
            # its momentum would be stale when it is needed next
            self._fallback = None
            return best
        return pick(patient, self._fallen_back(at._replace(psi=psi, residual=residual)), best)

    def _fallen_back(self, at: Iterate) -> Tensor:
        if self._fallback is None:
            self._fallback = Nesterov().start(self._weight)
        return self._fallback(at)

    def _remember(self, psi: Tensor, residual: Tensor, failed: Tensor) -> None:
        """Keep the differences from the step before; of problems that failed, keep none."""
        plain, some = psi + residual, residual[:, self._some]
        if self._last is not None:
            self._plain.add(plain, self._last[0])
            self._residuals.add(some, self._last[1])
        self._last = plain, some
        if _all_any(failed)[1]:
            self._plain.forget(failed)
            self._residuals.forget(failed)

    def _combination(self, dr: Tensor, residual: Tensor) -> Tensor:
        """Return the least-squares weights, (B, used), from scaled normal equations."""
        weighted = dr * self._weights[:, None, :]
        gram = torch.matmul(weighted, dr.mT)
        scale = gram.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300).rsqrt()
        gram = gram * scale[:, :, None] * scale[:, None, :]
        gram.diagonal(dim1=-2, dim2=-1).fill_(1.0 + 1e-10)
        right = torch.matmul(weighted, residual[:, :, None]) * scale[:, :, None]
        mix, info = torch.linalg.solve_ex(gram, right)
        good = torch.isfinite(mix).all(2).all(1) & (info == 0)
        return pick(good, mix[:, :, 0] * scale, torch.zeros_like(scale))


class _Differences(State):
    """The last differences of a sequence, of which the oldest is overwritten first."""

    def __init__(self, memory: int, like: Tensor) -> None:
        # the problems come second: each difference of a batch is one piece of memory
        self._slots, self._count = like.new_empty(memory, *like.shape), 0

    @property
    def held(self) -> Tensor:
        """What there is, (B, used, m), in no order."""
        return self._slots[: self._count].transpose(0, 1)

    def add(self, now: Tensor, before: Tensor) -> None:
        """Keep now - before, (B, m)."""
        torch.sub(now, before, out=self._slots[self._count % len(self._slots)])
        self._count += 1

    def forget(self, which: Tensor) -> None:
        """Keep nothing of the problems in the mask (B,): zeros have no say in a combination."""
        self._slots[: self._count].masked_fill_(which[:, None], 0.0)

    def select(self, index: Tensor) -> "_Differences":
        """Keep the problems at `index`."""
        kept = copy.copy(self)
        kept._slots = self._slots[:, index]
        return kept


@holdable
@dataclass(frozen=True)
class Nesterov:
    """Nesterov's momentum, restarted where it points against the last step.

    Source: B. O'Donoghue, E. Candes, Adaptive restart for accelerated gradient schemes, 2015.
    """

    def start(self, weight: Tensor) -> Steps:
        """Return a state without momentum."""
        return _NesterovSteps(weight)


class _NesterovSteps(State):
    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._last: Tensor | None = None
        self._t = torch.ones_like(weight[:, 0])

    def __call__(self, at: Iterate) -> Tensor:
        plain = at.psi + at.residual
        if self._last is None:
            self._last = plain
            return plain
        step = plain - self._last
        against = (at.residual * step * self._weight).sum(-1) < 0
        longer = (1 + (1 + 4 * self._t.square()).sqrt()) / 2
        momentum = (self._t - 1) / longer
        self._t = pick(against, torch.ones_like(longer), longer)
        self._last = plain
        return pick(against, plain, plain + momentum[:, None] * step)


def _all_any(mask: Tensor) -> tuple[bool, bool]:
    """Say whether all and whether some of a batch are meant; on an accelerator do not ask."""
    if mask.device.type != "cpu":
        return False, True
    count = int(mask.count_nonzero())
    return count == len(mask), count > 0
