"""Steps by logarithms, for exponents of any size: an exponential an entry and half step."""

import math

import torch
from torch import Tensor

from .definition import MOST
from .scaled import over


class Logs:
    """The steps of some matrices, in whichever layout, as `Scaled` takes them.

    Args:
        L: Exponents, at most zero.
        a: Sums of the rows, of the shape of L with one column.
        b: Sums of the columns.
        axes: Which axis of L counts rows, which columns.
    """

    def __init__(self, L: Tensor, a: Tensor, b: Tensor, axes: tuple[int, int]) -> None:
        self._L, self._a, self._b = L, a, b
        self.dtype = L.dtype
        self._log_a, self._log_b = a.log(), b.log()
        self._most_a, self._most_b = (torch.where(w > 0, math.inf, MOST) for w in (a, b))
        self._i, self._j = axes
        self._steps: list[tuple[Tensor, Tensor]] = []

    def run(self, n_iter: int, keep: bool) -> None:
        """Take the steps; `keep` them for going back, or the last one only."""
        g = self._log_b.new_zeros(())
        for k in range(n_iter):
            f = self._answer(self._L + (self._log_b + g if k else g), self._j)
            g = self._answer(self._L + (self._log_a + f), self._i)
            if not keep:
                self._steps.clear()
            self._steps.append((f, g))

    def plan(self) -> Tensor:
        """Return the matrices."""
        row, column = self.log_of_scales()
        return (self._L + row).add_(column).exp_()

    def log_of_scales(self) -> tuple[Tensor, Tensor]:
        """Return what makes the log of the matrices of L, per row and per column."""
        f, g = self._steps[-1]
        return self._log_a + f, self._log_b + g

    def back(self, G: Tensor, log: bool, weights: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return derivatives to L, a and b.

        Args:
            G: Derivatives to the matrices, or to their log; becomes those to L.
            log: Which.
            weights: Whether those to a and b are wanted.
        """
        rho, sigma, to_L = self._ends(G, log)
        to_a, to_b = torch.zeros_like(rho), torch.zeros_like(sigma)
        for k in range(len(self._steps) - 1, -1, -1):
            f, g = self._steps[k]
            if weights:
                to_b += sigma
            over_rows = self._over_rows(f, self._log_b + g).mul_(sigma)
            rho = rho - over_rows.sum(self._j, keepdim=True)
            to_L.addcmul_(over_rows, self._a, value=-1)
            if weights:
                to_a += rho
            before = self._steps[k - 1][1] if k else torch.zeros_like(g)
            over_columns = self._over_columns(self._log_a + f, before).mul_(rho)
            to_L.addcmul_(over_columns, self._b if k else torch.ones_like(self._b), value=-1)
            sigma = over_columns.sum(self._i, keepdim=True).neg_()
            rho = torch.zeros_like(rho)
        return to_L, to_a, to_b

    def _ends(self, G: Tensor, log: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return derivatives to log f over a, to log g over b, and to the last exponents."""
        f, g = self._steps[-1]
        row, column = self.log_of_scales()
        if log:
            G.masked_fill_((self._L + row).add_(column) == -math.inf, 0.0)
            rho, sigma = G.sum(self._j, keepdim=True), G.sum(self._i, keepdim=True)
            return over(rho, self._a), over(sigma, self._b), G
        rho = self._over_rows(f, column).mul_(G).sum(self._j, keepdim=True)
        sigma = self._over_columns(row, g).mul_(G).sum(self._i, keepdim=True)
        return rho, sigma, G.mul_(self.plan())

    def _over_rows(self, f: Tensor, column: Tensor) -> Tensor:
        """Return the matrices over the weights of their rows."""
        return torch.minimum((self._L + f).add_(column), self._most_a).exp_()

    def _over_columns(self, row: Tensor, g: Tensor) -> Tensor:
        """Return the matrices over the weights of their columns."""
        return torch.minimum((self._L + row).add_(g), self._most_b).exp_()

    @staticmethod
    def _answer(z: Tensor, axis: int) -> Tensor:
        answer = torch.logsumexp(z, axis, keepdim=True).neg_()
        return answer.masked_fill_(answer == math.inf, -math.inf)
