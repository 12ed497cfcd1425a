"""What sweeps of a batch cost beside its problems alone: who had better leave it, and when.

In microseconds of one core, about: only ratios count, and those of two ways differ by far where it
matters.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, shown
from sinkhorn_ot.sweeps import one_kernel


# sweeps of a batch: a call, a pair of a cost that is shared or not, a potential
_CALL, _SHARED, _OWN, _POTENTIAL = 400.0, 1.3e-3, 6e-3, 0.02
# problems alone: a call, a plain step and a pair of it, an exponential
_ALONE, _STEP, _PAIR, _EXP = 400.0, 10.0, 4e-4, 6e-3
# a Newton step, its multiply-adds, and how many there are from nearby, or in a stage from afar
_NEWTON, _ADD, _NEAR, _FAR = 90.0, 1e-4, 6, 4
# what is swept alone and its pairs, and sweeps' worth of Newton's steps by conjugate gradients
_LARGE, _CONJUGATE = 5e-3, 300.0
# pairs and multiply-adds of a Hessian up to which a problem is small
_PAIRS, _HESSIAN = 1 << 18, 2e8
# share of the pairs and pairs up to which points without weight are left out
_LEFT, _FEW = 0.5, 1 << 18


@shown
@dataclass(frozen=True, eq=False)
class Price:
    """What a batch costs, together and each problem alone.

    Attributes:
        afresh: Each problem alone, from the beginning, (B,).
        alone: Each problem alone, from where sweeps have come, (B,).
        call: A sweep, whatever it sweeps.
        each: A sweep of one problem, in addition.
        guess: Sweeps that a problem may take from the beginning.
    """

    afresh: Tensor
    alone: Tensor
    call: float
    each: float
    guess: float

    def sweeps(self, running: int) -> Tensor:
        """Return how many sweeps among so many cost what each problem costs alone, (B,)."""
        return self.alone / (self.call / running + self.each)

    @property
    def apart(self) -> Tensor:
        """Which problems had better never join, (B,)."""
        return self.afresh < self.guess * (self.call / len(self.afresh) + self.each)

    def select(self, index: Tensor) -> "Price":
        """Return the price of the problems at `index`."""
        return replace(self, afresh=self.afresh[index], alone=self.alone[index])


def price(p: Problem, tol: float) -> Price:
    """Return what a batch costs on a CPU."""
    batch, n, m = p.shape
    sharp = (p.bounds.high - p.bounds.low) / p.reg
    # digits asked for, beside those of the default
    depth = min(1.0, max(0.1, (1 - math.log10(tol)) / 10))
    guess = depth * (5 + 0.17 * sharp)
    rows, columns = (side.count_nonzero(dim=-1).to(p.work) for side in (p.a, p.b))
    fewer = (rows * columns <= _LEFT * n * m) | (n * m <= _FEW)
    rows, columns = torch.where(fewer, rows, n), torch.where(fewer, columns, m)
    pairs, cubes = rows * columns, rows * columns.square() + columns**3 / 3
    step = _NEWTON + _ADD * cubes
    plain = 2.5 * depth * sharp * (_STEP + _PAIR * pairs)
    stages = 1 + (0.05 * sharp).log2().clamp(min=0) / 2
    newton = stages * (_FAR * step + _EXP * pairs)
    small = (pairs <= _PAIRS) & (cubes <= _HESSIAN)
    large = guess * (_CALL + _LARGE * pairs)
    afresh = _ALONE + torch.where(small, torch.minimum(plain, newton), large)
    crawling = _NEAR * step + _EXP * pairs
    alone = _ALONE + torch.where(small, crawling, _CONJUGATE * _LARGE * pairs)
    pair = _SHARED if one_kernel(p) else _OWN
    each = (pair * n * m + _POTENTIAL * (n + m)) / torch.get_num_threads()
    return Price(afresh, alone, _CALL, each, float(guess.mean()))
