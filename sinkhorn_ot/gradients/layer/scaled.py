"""Steps that scale exponentials: one exponential an entry in all, for exponents that allow it.

With `E = exp(L - max_j L)` a step is `alpha = a f, f = 1 / (E beta)` or `beta = b g, g = 1 / (alpha
E)`; f and g are finite where a weight is zero. Going back, an entry gets the sum over all steps of
products of two vectors, times -E, whose sign serves all steps.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sinkhorn_ot.problem import shown


# how far exponents may reach for products of E, alpha and beta to stay normal numbers
REACH = {torch.float32: 36.0, torch.float64: 300.0}

# entries of a matrix from which a product is quicker than its calls
_LARGE = 1 << 14
# terms of a float32 sum that one product adds up without a loss that shows
_LONG = 4096


@shown
class Step(NamedTuple):
    """What rows and columns are scaled by, without their weights and with them."""

    f: Tensor
    g: Tensor
    alpha: Tensor
    beta: Tensor


class Scaled:
    """The steps of some matrices, in whichever layout.

    Args:
        E: Exponentials, which going back changes.
        a: Sums of the rows, of the shape of E with one column; None for ones.
        b: Sums of the columns.
        axes: Which axis of E counts rows, which columns.
        empty: Whether there may be a row or column without mass.
    """

    def __init__(
        self, E: Tensor, a: Tensor | None, b: Tensor | None, axes: tuple[int, int], empty: bool
    ) -> None:
        self._E, self._a, self._b = E, a, b
        self.dtype = E.dtype
        (self._i, self._j), self._empty = axes, empty
        self._work = torch.empty_like(E)
        # a large matrix alone is read once for a product, and no larger than a sum allows
        one = axes == (1, 2) and E.shape[0] == 1
        self._single = one and E.numel() >= _LARGE and max(E.shape) <= _LONG
        self._steps: list[Step] = []

    def run(self, n_iter: int, keep: bool) -> None:
        """Take the steps; `keep` them for going back, or the last one only."""
        total = self._E.sum(self._j, keepdim=True)
        for k in range(n_iter):
            if k:
                total = self._rows(self._steps[-1].beta)
            f = self._inverse(total)
            alpha = f if self._a is None else self._a * f
            g = self._inverse(self._columns(alpha))
            if not keep:
                self._steps.clear()
            self._steps.append(Step(f, g, alpha, g if self._b is None else self._b * g))

    def plan(self) -> Tensor:
        """Return the matrices; the next step writes over them."""
        end = self._steps[-1]
        return torch.mul(self._E, end.alpha, out=self._work).mul_(end.beta)

    def log_of_scales(self) -> tuple[Tensor, Tensor]:
        """Return what makes the log of the matrices of that of E, per row and per column."""
        end = self._steps[-1]
        return end.alpha.double().log_(), end.beta.double().log_()

    def back(self, G: Tensor, log: bool, weights: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return derivatives to the log of E, to a and to b; all of them write over what is held.

        Args:
            G: Derivatives to the matrices, or to their log.
            log: Which.
            weights: Whether those to a and b are wanted.
        """
        rho, sigma, to_E = self._ends(G, log)
        self._E.neg_()
        to_a, to_b = torch.zeros_like(rho), sigma.clone()
        last = len(self._steps) - 1
        products = []
        for k in range(last, -1, -1):
            step = self._steps[k]
            down = step.beta * sigma
            products.append((step.alpha, down))
            moved = self._rows(down).mul_(step.f)
            rho = moved.add_(rho) if k == last else moved
            if weights:
                to_a += rho
            across = step.alpha * rho
            if k == 0:
                products.append((across, torch.ones_like(down)))
                break
            before = self._steps[k - 1]
            products.append((across, before.beta))
            sigma = self._columns(across).mul_(before.g)
            if weights:
                to_b += sigma
        return self._summed(to_E, products).mul_(self._E), to_a, to_b

    def _ends(self, G: Tensor, log: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return derivatives to log f over a, to log g over b, and to the last exponents over -E.

        The latter are what all steps add to, so that what is small is rounded where it is.
        """
        end = self._steps[-1]
        if log:
            if self._empty:
                G.masked_fill_(self.plan() == 0, 0.0)
            rho, sigma = G.sum(self._j, keepdim=True), G.sum(self._i, keepdim=True)
            G.div_(self._E).neg_()
            if self._empty:
                G.masked_fill_(self._E == 0, 0.0)
            return over(rho, self._a), over(sigma, self._b), G
        moved = self._E * G
        rho = torch.mul(moved, end.beta, out=self._work).sum(self._j, keepdim=True).mul_(end.f)
        sigma = moved.mul_(end.alpha).sum(self._i, keepdim=True).mul_(end.g)
        return rho, sigma, G.mul_(-end.alpha).mul_(end.beta)

    def _summed(self, x: Tensor, products: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Add products of a row and a column to x."""
        if self._i == 0:
            for row, column in products:
                x.addcmul_(row, column)
            return x
        # in float64, whose precision nobody chooses
        rows, columns = zip(*products, strict=True)
        return torch.baddbmm(
            x.double(), torch.cat(rows, 2).double(), torch.cat(columns, 1).double()
        )

    def _rows(self, beta: Tensor) -> Tensor:
        if self._single:
            return torch.mv(self._E[0], beta.view(-1)).view(1, -1, 1)
        return torch.mul(self._E, beta, out=self._work).sum(self._j, keepdim=True)

    def _columns(self, alpha: Tensor) -> Tensor:
        if self._single:
            return torch.mv(self._E[0].t(), alpha.view(-1)).view(1, 1, -1)
        return torch.mul(self._E, alpha, out=self._work).sum(self._i, keepdim=True)

    def _inverse(self, total: Tensor) -> Tensor:
        inverse = total.reciprocal_()
        return inverse.masked_fill_(inverse == math.inf, 0.0) if self._empty else inverse


def over(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return x / weight, zero where there is no weight."""
    return x if weight is None else torch.where(weight > 0, x / weight, 0.0)
