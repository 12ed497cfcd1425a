"""A plan held as its entries above zero, of which an optimal one has no more than n + m - 1."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_ot.problem import Index, shown

from .coupling import Stored


@shown
@dataclass(frozen=True, eq=False)
class Sparse(Stored):
    """A plan held as a sparse tensor, with potentials found by other means.

    Attributes:
        problem: The problem that the plan answers.
        P: The plan, a sparse tensor (B, n, m) whose entries come in any order, each once:
            `coalesce` sorts them.
        f: Source potential, (B, n).
        g: Target potential, (B, m).
        cost: What the plan costs, (B,).
    """

    cost: Tensor

    @property
    def full(self) -> Tensor:
        """The plan with its zeros."""
        try:
            return self.P.to_dense()
        except RuntimeError as error:
            n, m = self.P.shape[1:]
            raise RuntimeError(
                f"no memory for a plan of {n} x {m}: read its entries, .coupling.P, or use apply"
            ) from error

    @property
    def entries(self) -> tuple[Tensor, Tensor]:
        """Numbers of problems, rows and columns, (3, K), and what moves there, (K,)."""
        return self.P._indices(), self.P._values()

    def block(self, rows: Index, C: Tensor, out: Tensor | None = None) -> Tensor:
        """Return those rows of the plan."""
        index = torch.arange(self.P.shape[1], device=self.P.device)[rows]
        found = self.P.index_select(1, index).to_dense()
        return found if out is None else out.copy_(found)

    def log_block(self, rows: Index, C: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the logarithm of those rows."""
        return torch.log(self.block(rows, C), out=out)

    def apply(self, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x by the entries."""
        (k, i, j), mass = self.entries
        size = self.P.shape[1]
        if transpose:
            i, j, size = j, i, self.P.shape[2]
        out = x.new_zeros(len(x) * size, x.shape[-1])
        out.index_add_(0, k * size + i, mass[:, None] * x[k, j])
        return out.reshape(len(x), size, -1)

    def conditional(self, y: Tensor, transpose: bool = False) -> Tensor:
        """Return the mean of y under each row; a row without mass has none and gets zero."""
        mass = self.apply(torch.ones_like(self.g)[..., None])
        share = torch.where(mass > 0, 1 / mass.clamp(min=torch.finfo(y.dtype).tiny), 0.0)
        return self.apply(share * y, True) if transpose else share * self.apply(y)

    def linear(self) -> Tensor:
        """Return <P, C>."""
        return self.cost
