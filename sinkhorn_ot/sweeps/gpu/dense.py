"""The sweep of stored costs on a GPU."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property

import torch
from torch import Tensor

from sinkhorn_ot.kernels import apply as products
from sinkhorn_ot.kernels import batched, dense_sweep, log_sums, whole
from sinkhorn_ot.kernels import fixed as plain
from sinkhorn_ot.kernels.whole_steps import HELD_STEPS
from sinkhorn_ot.problem import Cost, Dense, Problem, Streamed
from sinkhorn_ot.sweeps.protocol import Rules, Sweep, sweep_apart

from .shared import Kernels, lengths


# pairs whose cost stays in a GPU's cache from sweep to sweep
_CACHED = 1 << 24
# problems that are sooner solved one by one than together, where none fills the device (predicted)
_ALONE = 16


def stored(cost: Cost) -> tuple[Tensor, int] | None:
    """Return the tensor that holds costs, or with a sign of -1 scores, as it is stored."""
    if isinstance(cost, Dense):
        return cost.C, 1
    return cost.held if isinstance(cost, Streamed) else None


class DenseKernels(Kernels):
    """A stored cost: one read and one exponential per entry and sweep."""

    def __init__(
        self, problem: Problem, C: Tensor, sign: int = 1, lengths: Tensor | None = None
    ) -> None:
        """Take what is stored: costs, or scores if the sign is -1; and where padding begins."""
        super().__init__(problem)
        self._C, self._sign, self._lengths = C, sign, lengths

    @classmethod
    def of_stored(cls, problem: Problem) -> "DenseKernels":
        """Return the kernels of a problem whose cost is stored."""
        held = stored(problem.cost)
        assert held is not None, "nothing is stored"
        return cls(problem, *held, lengths=lengths(problem))

    @cached_property
    def inv_reg(self) -> Tensor:
        """Return 1 / reg of each problem, (B,); minus that where scores are stored."""
        inv_reg = self.problem.reg.reciprocal()
        return inv_reg if self._sign > 0 else -inv_reg

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns, in logarithms that cannot underflow."""
        a, inv_reg = self.problem.a, self.inv_reg
        if self.problem.penalties[0] is not None:
            return sweep_apart(self, a.log(), v)
        return dense_sweep.sweep(
            self._C, u, v, a, inv_reg, kappa=self._kappa, first=u is None, log=True,
            lengths=self._lengths,
        )  # fmt: skip

    def fixed(self, n_iter: int) -> tuple[Tensor, Tensor] | None:
        """Make plain sweeps in one launch, or in two each; None where rows do not fit on chip."""
        p = self.problem
        if self._small():
            return batched.solve(self._C, p.a, p.b, self.inv_reg, n_iter)[:2]
        if p.shape[0] == 1 and p.shape[1] * p.shape[2] <= _CACHED and self._fits():
            u, v = whole.fixed(*next(self._each()), n_iter)
            return u[None], v[None]
        if p.exact and plain.serves(self._C, p.b.dtype):
            return plain.sweeps(self._C, p.a, p.b, self.inv_reg, n_iter, lengths=self._lengths)
        return None

    def whole(self, n_iter: int, tol: float) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Make plain sweeps of small problems in one launch; None where one is not small."""
        p = self.problem
        if not self._small():
            return None
        return batched.solve(self._C, p.a, p.b, self.inv_reg, n_iter, tol)

    def annealed(
        self, rules: Rules, v: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None:
        """Solve one problem after another, each in one launch.

        None where rows are too long, for more memory than there is, and for many small problems,
        which are swept together.
        """
        batch, n, m = self.problem.shape
        many = batch > _ALONE and n * m <= _CACHED
        if many or rules.memory > HELD_STEPS.value or not self._fits():
            return None
        starts = [None] * self.problem.shape[0] if v is None else list(v)
        found = [
            whole.solve(*args, start, **asdict(rules))
            for args, start in zip(self._each(), starts, strict=True)
        ]
        u, v, told = map(_together, zip(*found, strict=True))
        error, made, end = told.unbind(-1)
        return u, v, error, made, end

    def _small(self) -> bool:
        p = self.problem
        return p.exact and batched.fits(*p.shape[1:], p.work)

    def _fits(self) -> bool:
        p = self.problem
        return p.exact and whole.serves(self._C[0], p.work)

    def _each(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield cost, weights and 1 / reg of one problem after another."""
        p = self.problem
        for k in range(p.shape[0]):
            C = self._C[0 if len(self._C) == 1 else k]
            yield C, p.a[k], p.b[k], self.inv_reg[k : k + 1]

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg)."""
        return log_sums.log_sum_rows(self._C, v, self.inv_reg)

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg)."""
        return log_sums.log_sum_columns(self._C, u, self.inv_reg)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        if transpose:
            return products.apply(self._C.mT, v, u, x, self.inv_reg)
        return products.apply(self._C, u, v, x, self.inv_reg)

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C>."""
        return self._sign * products.linear(self._C, u, v, self.inv_reg).sum(-1)

    def of(self, problem: Problem) -> Sweep:
        """Return the kernels of a problem with the same cost, or its transpose."""
        return DenseKernels.of_stored(problem)

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return DenseKernels(self.problem.at(reg), self._C, self._sign, self._lengths)

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        return DenseKernels.of_stored(self.problem.select(index))


def _together(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors as one batch; a single one without a copy."""
    return parts[0][None] if len(parts) == 1 else torch.stack(list(parts))
