"""The primitive over ranks: each sweeps its own rows, and every sum over rows is all-reduced.

Ranks may hold different numbers of rows, and none. What a solver decides on are sums over all rows,
the same on every rank, so that no rank goes another way. What one rank cannot read it replaces by
NaN, so that the others are not left waiting: where a sum is NaN, all ask each other why.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from sinkhorn_ot.problem import Holders, Problem

from .protocol import Remembers, Sweep


# a sum below this has lost digits to underflow on every rank
_TINY = 1e-30


class OverRanks:
    """A sweep over the rows of all ranks: one reduction of column sums each."""

    def __init__(self, local: Sweep, ranks: Holders, problem: Problem | None = None) -> None:
        """Begin.

        Args:
            local: Sweeps the rows that are held here.
            ranks: Who holds the others.
            problem: The problem of these rows that knows of the others; None if that of `local`.
        """
        self.local, self._ranks = local, ranks
        self.problem = local.problem if problem is None else problem

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move this rank's rows, then sum the columns over all ranks."""
        rows = self.problem.a

        def columns() -> Tensor:
            nonlocal rows
            rows, log_s = self.local.sweep(u, v)
            return log_s

        log_s = self._ranks.attempt(columns, v)
        s = self._ranks.sum(log_s.exp())
        # with exact rows no column sum exceeds the mass; relaxed ones may carry more than is held
        if bool((~((s >= _TINY) & (s < math.inf)) & (v > -math.inf)).any()):
            self._explain(s)
            return rows, self._log_sum(log_s)
        return rows, s.log()

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg) of this rank's rows."""
        return self._ranks.attempt(lambda: self.local.log_sum_rows(v), self.problem.a)

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg) over the rows of all ranks."""
        log_s = self._ranks.attempt(lambda: self.local.log_sum_columns(u), self.problem.b)
        return self._explain(self._log_sum(log_s))

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x for this rank's rows, or P^T @ x summed over all."""
        side = self.problem.b if transpose else self.problem.a
        like = side[..., None].expand(*side.shape, x.shape[-1])
        y = self._ranks.attempt(lambda: self.local.apply(u, v, x, transpose), like)
        return self._explain(self._ranks.sum(y)) if transpose else y

    def curve(self, u: Tensor, v: Tensor) -> Tensor:
        """Return P^T diag(1 / P 1) P over all rows."""
        like = v[..., None].expand(*v.shape, v.shape[-1])
        return self._sum(lambda: self.local.curve(u, v), like)

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by that, over all rows."""
        product = self.local.curve_product(u, v)
        return lambda x: self._sum(lambda: product(x), x)

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C> over all rows."""
        return self._sum(lambda: self.local.linear(u, v), v[:, 0])

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x over the rows of all ranks."""
        return self._ranks.sum(self.local.total(x))

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return OverRanks(self.local.at(reg), self._ranks, self.problem.at(reg))

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        return OverRanks(self.local.select(index), self._ranks, self.problem.select(index))

    def told(self) -> dict[str, Any]:
        """Return what this rank's sweep depends on."""
        return self.local.told() if isinstance(self.local, Remembers) else {}

    def take(self, memory: dict[str, Any]) -> None:
        """Sweep on as the one did that told this of itself."""
        if isinstance(self.local, Remembers):
            self.local.take(memory)

    def _sum(self, act: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Return the sum of what each rank makes of its rows."""
        return self._explain(self._ranks.sum(self._ranks.attempt(act, like)))

    def _explain(self, x: Tensor) -> Tensor:
        """Return reduced numbers; where they are none, raise on all ranks what one raised."""
        if bool(x.isnan().any()):
            self._ranks.settle()
        return x

    def _log_sum(self, log_s: Tensor) -> Tensor:
        top = self._ranks.max(log_s)
        shift = top.masked_fill(top == -math.inf, 0.0)
        return self._ranks.sum((log_s - shift).exp()).log() + shift
