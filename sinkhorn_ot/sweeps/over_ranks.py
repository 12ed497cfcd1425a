"""The primitive over ranks: each sweeps its own rows, and every sum over rows is all-reduced.

Ranks may hold different numbers of rows, and none. What a solver decides on are sums over all rows,
the same on every rank, so that no rank goes another way.
"""

import math
from collections.abc import Callable

from torch import Tensor

from sinkhorn_ot.problem import Holders

from .protocol import Sweep


# a sum below this has lost digits to underflow on every rank
_TINY = 1e-30


class OverRanks:
    """A sweep over the rows of all ranks: one reduction of column sums each."""

    def __init__(self, local: Sweep, ranks: Holders) -> None:
        self.local, self._ranks = local, ranks
        self.problem = local.problem

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move this rank's rows, then sum the columns over all ranks."""
        u, log_s = self.local.sweep(u, v)
        s = self._ranks.sum(log_s.exp())
        # with exact rows no column sum exceeds the mass; relaxed ones may carry more than is held
        if bool((~((s >= _TINY) & (s < math.inf)) & (v > -math.inf)).any()):
            return u, self._log_sum(log_s)
        return u, s.log()

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg) of this rank's rows."""
        return self.local.log_sum_rows(v)

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg) over the rows of all ranks."""
        return self._log_sum(self.local.log_sum_columns(u))

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x for this rank's rows, or P^T @ x summed over all."""
        y = self.local.apply(u, v, x, transpose)
        return self._ranks.sum(y) if transpose else y

    def curve(self, u: Tensor, v: Tensor) -> Tensor:
        """Return P^T diag(1 / P 1) P over all rows."""
        return self._ranks.sum(self.local.curve(u, v))

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by that, over all rows."""
        product = self.local.curve_product(u, v)
        return lambda x: self._ranks.sum(product(x))

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C> over all rows."""
        return self._ranks.sum(self.local.linear(u, v))

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x over the rows of all ranks."""
        return self._ranks.sum(self.local.total(x))

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return OverRanks(self.local.at(reg), self._ranks)

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        return OverRanks(self.local.select(index), self._ranks)

    def _log_sum(self, log_s: Tensor) -> Tensor:
        top = self._ranks.max(log_s)
        shift = top.masked_fill(top == -math.inf, 0.0)
        return self._ranks.sum((log_s - shift).exp()).log() + shift
