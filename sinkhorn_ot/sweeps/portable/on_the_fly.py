"""The primitive without storage: row blocks are computed or read, and exponentiated, at every pass.

It serves costs that do not fit in memory, and the few passes that a result may need.
"""

import math

import torch
from torch import Tensor

from sinkhorn_ot.problem import Index
from sinkhorn_ot.sweeps.protocol import Sweep, move_rows, sweep_apart

from .blockwise import TINY, Blockwise
from .cpu import exp_


class OnTheFly(Blockwise):
    """Nothing stored: one exponential per entry and sweep, O(n + m) memory."""

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns, block by block."""
        if self.problem.penalties[0] is not None:
            return sweep_apart(self, self.log_a, v)
        new, s = torch.empty_like(self.problem.a), torch.zeros_like(self.problem.b)
        for rows, C in self._tiles():
            base, block, sums = self._summed(rows, C, u, v)
            new[:, rows] = move_rows(self.problem, self.log_a[:, rows], sums.log() - base)
            weight = (new[:, rows] - base).exp_()
            s += torch.matmul(weight[:, None, :], block)[:, 0]
        return new, self._rescued(new, v, s)

    def _summed(
        self, rows: Index, C: Tensor, u: Tensor | None, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a base per row, exp(base + v - C / reg), and its row sums.

        The last potential is the base while it keeps the sums in range, else minus the maximum.
        """
        if u is not None:
            base = u[:, rows]
            block = exp_(self._exponent(C, base, v))
            sums = block.sum(-1)
            good = (sums > TINY) & (sums < math.inf) | (base == -math.inf)
            if bool(good.all()):
                return base.masked_fill(base == -math.inf, 0.0), block, sums
        block = self._exponent(C, None, v)
        base = -block.amax(-1)
        base.masked_fill_(base == math.inf, 0.0)
        block = exp_(block.add_(base[..., None]))
        return base, block, block.sum(-1)

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return OnTheFly(self.problem.at(reg))

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        return OnTheFly(self.problem.select(index))
