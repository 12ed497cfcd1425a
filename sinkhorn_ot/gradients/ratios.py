"""What pairs carry of a row's weight: held where that fits, and formed block by block where not."""

import math
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from sinkhorn_ot.problem import Index, blocks
from sinkhorn_ot.results import Entropic
from sinkhorn_ot.sweeps import Sweep, choose, exponent


# the largest exponent of a pair of which neither point has weight: it will be multiplied by zero
_LARGE = 600.0


class Ratios:
    """P_ij / a_i of a plan given by potentials, rows without weight included.

    Columns without weight are there as if they had a weight of one, in blocks; products of the plan
    do not see them.

    Args:
        coupling: The plan.
    """

    def __init__(self, coupling: Entropic) -> None:
        p = self.problem = coupling.problem
        self._of = coupling
        self.weighs = p.b > 0
        self.all_weigh = bool(self.weighs.all())
        self.log_b = torch.where(self.weighs, p.b, 1.0).log()
        self._phi, self._psi = self._exponents()
        entries = math.prod(p.shape)
        self._fits = entries * p.work.itemsize <= p.cost.memory

    def _exponents(self) -> tuple[Tensor, Tensor]:
        """Return what rows and columns add to the exponents, -inf for who has no partner."""
        k, p = self._of, self.problem
        # scaled potentials say who has no partner; f and g are finite there
        phi, psi = k.u - p.a.log(), k.v
        rows = p.a > 0
        every_row = bool(rows.all())
        if not every_row:
            phi = torch.where(rows, phi, (k.f - p.shifts[0]) / p.reg[:, None])
        if not self.all_weigh:
            psi = torch.where(self.weighs, psi, (k.g - p.shifts[1]) / p.reg[:, None])
        if not every_row and not self.all_weigh:
            # points without weight are as alone as their sums are
            phi = torch.where(~rows & k.sweep.log_sum_rows(k.v).isneginf(), -math.inf, phi)
            alone = k.sweep.log_sum_columns(k.u).isneginf()
            psi = torch.where(~self.weighs & alone, -math.inf, psi)
        return phi, psi

    def blocks(self) -> Iterator[tuple[Index, Tensor, Tensor]]:
        """Yield the numbers of some rows, their costs and their ratios, (B, rows, m) each."""
        p = self.problem
        for index, C in blocks(p.cost, p.shape[0], p.work):
            yield index, C, self._held[:, index] if self._fits else self.exponents(index, C).exp_()

    def exponents(self, index: Index, C: Tensor) -> Tensor:
        """Return the logarithms of the ratios of some rows."""
        p = self.problem
        scaled = C - p.shift if p.shift else C
        E = exponent(scaled, (1 / p.reg)[:, None, None], self._phi[:, index], self._psi)
        return E if self.all_weigh else E.clamp_(max=_LARGE)

    @cached_property
    def _held(self) -> Tensor:
        p = self.problem
        held = p.a.new_empty(p.shape)
        for index, C in blocks(p.cost, p.shape[0], p.work):
            held[:, index] = self.exponents(index, C).exp_()
        return held

    def apply(self, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x for x (B, m), or P^T @ x for x (B, n)."""
        if not self._fits:
            return self._of.apply(x[..., None], transpose)[..., 0]
        a, columns = self.problem.a, self.weighs
        if transpose:
            return torch.where(columns, _times(self._held.mT, a * x), 0.0)
        return a * _times(self._held, torch.where(columns, x, 0.0))

    def curve(self, mass: Tensor) -> Tensor:
        """Return P^T diag(1 / mass) P, (B, m, m), for the masses of the rows, (B, n)."""
        if not self._fits:
            return self._sweep.curve(self._of.u, self._of.v)
        root = torch.where(mass > 0, self.problem.a * mass.rsqrt(), 0.0)
        scaled = self._held * root[..., None]
        scaled = scaled if self.all_weigh else torch.where(self.weighs[:, None, :], scaled, 0.0)
        return scaled.mT @ scaled

    def curve_product(self, mass: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies x (B, m) by that."""
        if not self._fits:
            return self._sweep.curve_product(self._of.u, self._of.v)
        inverse = torch.where(mass > 0, 1 / mass, 0.0)
        return lambda x: self.apply(inverse * self.apply(x), transpose=True)

    @cached_property
    def _sweep(self) -> Sweep:
        """A sweep that holds what its products need."""
        sweep = choose(self.problem, 1e-9)
        sweep.sweep(self._of.u, self._of.v)
        return sweep


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    # one product of a batch of one is slower than one of a matrix
    if len(matrix) == 1:
        return torch.mv(matrix[0], x[0])[None]
    return torch.bmm(matrix, x[..., None])[..., 0]
