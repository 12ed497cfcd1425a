"""The primitive over ranks that hold the same rows, each with columns of its own.

Vectors over columns are whole on every rank, for they are small beside its block of costs. What a
row sums is reduced over these ranks, and what they say of their columns is put side by side.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem

from .protocol import Sweep, move_rows


class OverColumns:
    """A sweep over the columns of all ranks that hold the same rows."""

    def __init__(self, problem: Problem, local: Sweep) -> None:
        """Begin.

        Args:
            problem: The problem of these rows and all columns.
            local: Sweeps these rows and the columns that are held here.
        """
        assert problem.beside is not None
        assert problem.spread is not None
        self.problem, self.local = problem, local
        self._ranks, self._own = problem.beside.ranks, problem.columns
        # what fails here becomes NaN, which no sum loses, so that nobody is left waiting
        self._attempt = problem.spread.ranks.attempt

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns."""
        u = move_rows(self.problem, self.problem.a.log(), self.log_sum_rows(v))
        return u, self.log_sum_columns(u) + v

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg) over the columns of all ranks."""
        r = self._attempt(lambda: self.local.log_sum_rows(v[:, self._own]), self.problem.a)
        top = self._ranks.max(r)
        shift = top.masked_fill(top == -math.inf, 0.0)
        return self._ranks.sum((r - shift).exp()).log() + shift

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg) of these rows and the columns of all ranks."""
        whole = torch.zeros_like(self.problem.b)
        own = whole[:, self._own]
        own.copy_(self._attempt(lambda: self.local.log_sum_columns(u), own))
        return self._ranks.sum(whole)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x of these rows and the columns of all ranks."""
        own, given = v[:, self._own], x if transpose else x[:, self._own]
        whole = x.new_zeros(*(v if transpose else u).shape, x.shape[2])
        part = whole[:, self._own] if transpose else whole
        part.copy_(self._attempt(lambda: self.local.apply(u, own, given, transpose), part))
        return self._ranks.sum(whole)

    def curve(self, u: Tensor, v: Tensor) -> Tensor:
        """Refuse: columns of different ranks never meet."""
        raise NotImplementedError("the Hessian of columns that ranks hold apart is not formed")

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Refuse likewise."""
        raise NotImplementedError("the Hessian of columns that ranks hold apart is not formed")

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C> of these rows and the columns of all ranks."""
        own = v[:, self._own]
        return self._ranks.sum(self._attempt(lambda: self.local.linear(u, own), own[:, 0]))

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x (..., B, n) over these rows, (..., B)."""
        return self.local.total(x)

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return OverColumns(self.problem.at(reg), self.local.at(reg))

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        return OverColumns(self.problem.select(index), self.local.select(index))
