"""The meaning of the primitive: eager, dense, in log domain.

Every other implementation is tested against this one, so it is written to be read, not to be quick.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem

from .protocol import Sweep, move_rows


class Reference:
    """A sweep over a cost matrix held whole."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._log_a = problem.a.log()

    def _exponent(self, u: Tensor | float, v: Tensor | float) -> Tensor:
        """Return u_i + v_j - C_ij / reg, shape (B, n, m), C less the problem's shift."""
        _, n, _ = self.problem.shape
        C = self.problem.cost.rows(0, n).to(self.problem.work) - self.problem.shift
        rows = u[:, :, None] if isinstance(u, Tensor) else u
        columns = v[:, None, :] if isinstance(v, Tensor) else v
        return rows + columns - C / self.problem.reg[:, None, None]

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns."""
        u = move_rows(self.problem, self._log_a, self.log_sum_rows(v))
        return u, self.log_sum_columns(u) + v

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg)."""
        return torch.logsumexp(self._exponent(0.0, v), -1)

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg)."""
        return torch.logsumexp(self._exponent(u, 0.0), -2)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        P = self._exponent(u, v).exp()
        return (P.mT if transpose else P) @ x

    def curve(self, u: Tensor, v: Tensor) -> Tensor:
        """Return P^T diag(1 / P 1) P."""
        P = self._exponent(u, v).exp()
        mass = P.sum(-1, keepdim=True)
        return P.mT @ torch.where(mass > 0, P / mass, 0.0)

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by P^T diag(1 / P 1) P."""
        W = self.curve(u, v)
        return lambda x: (W @ x[:, :, None])[:, :, 0]

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C>; a forbidden pair carries nothing."""
        C = self.problem.cost.rows(0, self.problem.shape[1]).to(self.problem.work)
        P = self._exponent(u, v).exp()
        return torch.where(P > 0, P * C, 0.0).nan_to_num(posinf=math.inf).sum((-2, -1))

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x (B, n) over the rows, (B,)."""
        return x.sum(-1)

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return Reference(self.problem.at(reg))

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        return Reference(self.problem.select(index))
