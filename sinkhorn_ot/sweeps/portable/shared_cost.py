"""One stored kernel for a batch that shares a cost: a sweep is two matrix products."""

import math

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, at_once
from sinkhorn_ot.sweeps.protocol import Sweep, move_rows

from .blockwise import TILE, TINY, Blockwise
from .cpu import empty, log_, normal_exp_


class SharedKernel(Blockwise):
    """One kernel for a whole batch whose spread / reg its format can hold."""

    # exponents a stored kernel may span, per format: no sum is below its least entry, as the
    # largest potential is taken off, and what underflows beside that is no digit of it
    SPAN = {torch.float64: 650.0, torch.float32: 40.0}

    def __init__(self, problem: Problem, store: torch.dtype, kernel: Tensor | None = None) -> None:
        super().__init__(problem)
        self._low = (problem.bounds.low - problem.shift) / float(problem.reg[0])
        if kernel is None:
            n = problem.shape[1]
            kernel = empty(problem.cost.shape, store, problem.a.device)
            entries = at_once(kernel.device, TILE)
            for start in range(0, n, step := max(1, entries // kernel.shape[1])):
                C = problem.cost.rows(start, start + step)[0].to(problem.work) - problem.shift
                kernel[start : start + step] = normal_exp_(self._low - C / problem.reg[0])
        self._kernel, self._store = kernel, store

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns: two matrix products."""
        top = _top(v)
        r = normal_exp_(v - top).to(self._store) @ self._kernel.t()
        log_r = log_(r.to(v.dtype, copy=self.problem.bounds.forbids)).add_(top - self._low)
        if (lost := self._lost(r, self.log_a)) is not None:
            log_r = torch.where(lost, self.log_sum_rows(v), log_r)
        u = self._moved(log_r)
        top = _top(u)
        s = normal_exp_(u - top).to(self._store) @ self._kernel
        log_s = log_(s.to(v.dtype, copy=self.problem.bounds.forbids)).add_(v).add_(top - self._low)
        if (lost := self._lost(s, v)) is not None:
            log_s = torch.where(lost, self.log_sum_columns(u) + v, log_s)
        return u, log_s

    def _moved(self, log_r: Tensor) -> Tensor:
        """Return the row potentials that answer log_r, in its place where no row is empty."""
        p = self.problem
        if p.bounds.forbids or p.penalised or p.relax[0] < math.inf:
            return move_rows(p, self.log_a, log_r)
        return torch.sub(self.log_a, log_r, out=log_r)

    def _lost(self, sums: Tensor, log_weight: Tensor) -> Tensor | None:
        """Return which sums have lost digits, since what is largest is forbidden to them."""
        if not self.problem.bounds.forbids:
            return None
        lost = (sums < TINY) & (log_weight > -math.inf)
        return lost if bool(lost.any()) else None

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return SharedKernel(self.problem.at(reg), self._store)

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`, sharing the kernel."""
        return SharedKernel(self.problem.select(index), self._store, self._kernel)


def _top(scaled: Tensor) -> Tensor:
    """Return the largest potential of each problem, (B, 1); zero where no point has weight."""
    top = scaled.amax(-1, keepdim=True)
    return top.masked_fill(top == -math.inf, 0.0)
