"""What sweeps of a batch cost beside its problems alone: who had better leave it, and when.

In microseconds of one core, about: only ratios count, and those of two ways differ by far where it
matters.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, shown
from sinkhorn_ot.sweeps import one_kernel

from .presolve import FEW, STORED


# a sweep of a batch: a call, and per problem what it is and its potentials
_CALL, _SWEPT, _POTENTIAL = 450.0, 3.0, 0.05
# a pair of it: of one kernel for all, read once and multiplied, or of a kernel each
_READ, _SHARED, _OWN = 1e-3, 1.8e-4, 2e-3
# a pair of a kernel each, built
_BUILT = 8e-3
# a problem alone: a call, a plain step and a pair of it, an exponential, a pair taken from others
_ALONE, _STEP, _PAIR, _EXP, _TAKEN = 250.0, 4.0, 2.6e-4, 3e-3, 4e-3
# a Newton step, its pairs and its multiply-adds, and how many there are from nearby
_NEWTON, _ROOT, _ADD, _NEAR = 90.0, 5e-3, 5e-5, 6
# plain steps of a stage
_STAGE = 15
# a pair of one large problem's sweep, and sweeps' worth of Newton's steps: from nearby, and along
# the path of the potentials, however small reg is
_LARGE, _CONJUGATE, _FOLLOWED = 1.5e-3, 100.0, 70.0
# pairs and multiply-adds of a Hessian up to which a problem is small
PAIRS, HESSIAN = 1 << 18, 2e8
# share of the cost together below which a problem is alone: each that leaves makes others leave
_CLEARLY = 0.8
# digits of the default tolerance
_DIGITS = 9


@shown
@dataclass(frozen=True, eq=False)
class Price:
    """What a batch costs, together and each problem alone.

    Attributes:
        afresh: Each problem alone, from the beginning, (B,).
        alone: Each problem alone, from where sweeps have come, (B,).
        joined: Each problem together with the others, from the beginning, less calls, (B,).
        guess: Sweeps that each problem may take from the beginning, (B,).
        call: A sweep, whatever it sweeps.
        each: A sweep of one problem, in addition.
    """

    afresh: Tensor
    alone: Tensor
    joined: Tensor
    guess: Tensor
    call: float
    each: float

    def sweeps(self, running: int) -> Tensor:
        """Return how many sweeps among so many cost what each problem costs alone, (B,)."""
        return self.alone / (self.call / running + self.each)

    @property
    def apart(self) -> Tensor:
        """Which problems had better never join, (B,)."""
        apart, count = torch.zeros_like(self.afresh, dtype=torch.bool), -1
        # a call is shared by those who join
        while count < (count := int(apart.count_nonzero())) < len(apart):
            share = self.guess * self.call / (len(apart) - count)
            apart |= self.afresh < _CLEARLY * (self.joined + share)
        return apart

    def select(self, index: Tensor) -> "Price":
        """Return the price of the problems at `index`."""
        held: dict[str, Any] = {k: t[index] for k, t in vars(self).items() if isinstance(t, Tensor)}
        return replace(self, **held)


def price(p: Problem, tol: float) -> Price:
    """Return what a batch costs on a CPU."""
    _, n, m = p.shape
    sharp = (p.bounds.high - p.bounds.low) / p.reg
    depth = min(1.0, max(0.1, -math.log10(tol) / _DIGITS))
    guess = (0.35 + 0.65 * depth) * (7 + 0.17 * sharp)
    stages = 1 + (0.05 * sharp).log2().clamp(min=0) / 2
    afresh, alone = _by_themselves(p, depth, sharp, stages, guess)
    kernel = one_kernel(p)
    pairs, call = n * m, _CALL + (_READ * n * m if kernel else 0.0)
    each = _SWEPT + _POTENTIAL * (n + m) + (_SHARED if kernel else _OWN) * pairs
    # threads share what is large
    each /= torch.get_num_threads()
    built = 0.0 if kernel else _BUILT * pairs
    return Price(afresh, alone, guess * each + stages * built, guess, call, each)


def _by_themselves(
    p: Problem, depth: float, sharp: Tensor, stages: Tensor, guess: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what each problem costs alone, among its points with weight: afresh, and from near."""
    _, n, m = p.shape
    rows, columns = (side.count_nonzero(dim=-1).to(p.work) for side in (p.a, p.b))
    fewer = (rows * columns <= STORED * n * m) | (n * m <= FEW)
    rows, columns = torch.where(fewer, rows, n), torch.where(fewer, columns, m)
    taken = torch.where(rows * columns < n * m, _TAKEN * rows * columns, 0.0)
    pairs, adds = rows * columns, rows * columns.square() + columns**3 / 3
    small = (pairs <= PAIRS) & (adds <= HESSIAN)
    plain = 2.3 * depth * sharp * (_STEP + _PAIR * pairs) + _EXP * pairs
    step = _NEWTON + _ROOT * pairs + _ADD * adds
    staged = stages * (_STAGE * (_STEP + _PAIR * pairs) + _EXP * pairs)
    newton = depth * (1 + 1.5 * stages) * step + staged
    large = guess.clamp(max=_FOLLOWED * depth) * (_CALL + _LARGE * pairs)
    afresh = _ALONE + taken + torch.where(small, torch.minimum(plain, newton), large)
    near = torch.minimum(plain, _NEAR * depth * step) + _EXP * pairs
    alone = _ALONE + taken + torch.where(small, near, _CONJUGATE * (_CALL + _LARGE * pairs))
    return afresh, alone
