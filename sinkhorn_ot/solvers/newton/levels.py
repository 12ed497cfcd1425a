"""Neighbours that move together: what plain steps take long for is solved for at once.

A plain step answers what is wrong about a column by itself, and what is wrong over a distance only
by many of them. The Hessian of the semi-dual, summed over groups of neighbours, is small enough for
a factorisation, which tells how far each group must go as a whole.

Source: R. Blaheta, A multilevel method with correction by aggregation for solving discrete elliptic
problems, Aplikace matematiky 1986.
"""

from torch import Tensor

from .laplacian import factorised, solve_laplacian


# what is added to the diagonal, relative to b: the curve's sums may have few digits
_JOINED = 1e-9


class Levels:
    """About the inverse of a Hessian: of its diagonal, and of its sums over groups."""

    def __init__(
        self, W: Tensor, group: Tensor, b: Tensor, diagonal: Tensor, damping: Tensor
    ) -> None:
        """Factorise.

        Args:
            W: The curve summed over groups, (1, k, k).
            group: The group of each column, (m,).
            b: What columns weigh, (1, m).
            diagonal: What the curve is taken off, (1, m).
            damping: What is added to that, (1, m).
        """
        self._group, self._groups = group, W.shape[1]
        self._b, self._diagonal = self._sums(b), (diagonal + damping).clamp(min=1e-300)
        joined = _JOINED * self._b + self._sums(damping)
        self._factor = factorised((W + W.mT) / 2, joined)

    def __call__(self, x: Tensor) -> Tensor:
        """Return about Hessian^-1 x, (1, m)."""
        sums = self._sums(x)
        # a constant means nothing
        sums = sums - self._b * (sums.sum() / self._b.sum())
        together = solve_laplacian(self._factor, sums, self._b)
        together = together - sums / self._sums(self._diagonal)
        return x / self._diagonal + together[:, self._group]

    def _sums(self, x: Tensor) -> Tensor:
        return x.new_zeros(1, self._groups).index_add_(1, self._group, x)
