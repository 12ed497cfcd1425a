"""The primitive between grids: sums over all pairs are sums along one axis after the other.

A cost that is a sum over axes has a kernel that is a product over axes. No number of its size is
ever formed: a sweep of n points in d dimensions takes n^(1 + 1/d) multiplications.

Source: J. Solomon et al., Convolutional Wasserstein distances: efficient optimal transportation on
geometric domains, ACM Transactions on Graphics 2015.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from sinkhorn_ot.problem import GridCost, Problem
from sinkhorn_ot.sweeps.protocol import Sweep, move_rows

from .along import SPAN, Axes, Extreme, Mild
from .blockwise import Blockwise


class Separable(Blockwise):
    """A sweep between two grids, by products where kernels are mild and by logarithms elsewhere."""

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns."""
        u = move_rows(self.problem, self.log_a, self.log_sum_rows(v))
        return u, self.log_sum_columns(u).add_(v)

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg)."""
        return self._walked(self._to_rows, v)[-1]

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg)."""
        return self._walked(self._to_columns, u)[-1]

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x: sums of exponentials times means of x."""
        axes, start, end = (self._to_columns, u, v) if transpose else (self._to_rows, v, u)
        path = self._walked(axes, start)
        mass = (path[-1] + end).exp_()
        return mass[..., None] * self._mean(axes, path, x.mT).mT

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by P^T diag(1 / P 1) P: a mean over columns, then a sum."""
        rows, columns = self._walked(self._to_rows, v), self._walked(self._to_columns, u)
        mass = (columns[-1] + v).exp_()

        def product(x: Tensor) -> Tensor:
            y = self._mean(self._to_rows, rows, x[:, None])
            return mass * self._mean(self._to_columns, columns, y)[:, 0]

        return product

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C>: what has been paid on average, axis by axis."""
        path = self._walked(self._to_rows, v)
        paid = torch.full_like(v, sum(end.low for end in self._cost.ends))
        for axes, x, log_sum in zip(self._to_rows, path, path[1:], strict=False):
            paid = axes.mean(x, log_sum, paid[:, None])[:, 0] + axes.cost(x, log_sum)
        return ((path[-1] + u).exp_() * paid).sum(-1)

    def of(self, problem: Problem) -> Sweep:
        """Return the same for a problem that has this one's cost, or its transpose."""
        return Separable(problem)

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return Separable(self.problem.at(reg))

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        return Separable(self.problem.select(index))

    def _walked(self, axes: list[Axes], x: Tensor) -> list[Tensor]:
        """Return the potentials, and the logarithms of their sums after each step."""
        p = self.problem
        # axes begin at zero: what all pairs cost beyond that
        level = sum(end.low for end in self._cost.ends) - p.shift
        path = [(x - level / p.reg[:, None] if level else x).contiguous()]
        for step in axes:
            path.append(step.log_sum(path[-1]))
        return path

    @staticmethod
    def _mean(axes: list[Axes], path: list[Tensor], y: Tensor) -> Tensor:
        """Return the mean of y (B, k, m) under what the walk sums up, (B, k, n)."""
        y = y.contiguous()
        for step, x, log_sum in zip(axes, path, path[1:], strict=False):
            y = step.mean(x, log_sum, y)
        return y

    @property
    def _cost(self) -> GridCost:
        cost = self.problem.cost
        assert isinstance(cost, GridCost)
        return cost

    @cached_property
    def _along(self) -> list[Tensor]:
        """Costs along each axis less the least, (n, m)."""
        pairs = zip(self._cost.along, self._cost.ends, strict=True)
        return [C[0].to(self.problem.work) - end.low for C, end in pairs]

    @cached_property
    def _to_rows(self) -> list[Axes]:
        return self._grouped(self._along)

    @cached_property
    def _to_columns(self) -> list[Axes]:
        return self._grouped([C.mT for C in self._along])

    def _grouped(self, along: list[Tensor]) -> list[Axes]:
        """Return the axes in as few steps as their exponents allow."""
        p, most = self.problem, SPAN[self.problem.work]
        one = len(p.reg) == 1 or p.one_reg is not None or bool((p.reg == p.reg[0]).all())
        reg = p.reg[:1] if one else p.reg
        found: list[Axes] = []
        group: list[Tensor] = []
        room = most
        for C, end in zip(along, self._cost.ends, strict=True):
            span = (end.high - end.low) / p.least_reg
            sharp = end.forbids or span > most
            if group and (sharp or span > room):
                found.append(Mild(group, reg))
                group, room = [], most
            if sharp:
                found.append(Extreme(C, reg))
            else:
                group.append(C)
                room -= span
        return [*found, Mild(group, reg)] if group else found
