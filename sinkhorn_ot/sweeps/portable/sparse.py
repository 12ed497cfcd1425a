"""A kernel of which few entries count, swept as those few.

At small reg the rows of a plan are narrow. What lies far below its row's maximum is less than
rounding for all potentials near those it was judged at, so a sweep of the rest is a sweep. Entries
are judged twice: one pass over the cost keeps what may count for potentials in a wide
neighbourhood, from which the kernel of a close one is made again and again. Outside of the wide
one, or where a column lives on what was dropped, the caller is told.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.problem import Block, Problem, needs
from sinkhorn_ot.sweeps.protocol import move_rows


Array = npt.NDArray[Any]

# how far a column's potential may move before other entries could count: kernel, and what is kept
_CLOSE, _WIDE = 12.0, 60.0
# the logarithm of what all dropped entries of a row may come to, of the row
_LOST = -40.0
# share of entries kept above which a dense product is as quick
_FULL = 0.2
# what an entry of compressed rows costs beside one of a matrix
_PLACE = 3.0
# share of the rows after which that is known well enough
_SAMPLE = 1 / 16


def may_be_sparse(problem: Problem) -> bool:
    """Say whether looking for few live entries is worth a try."""
    batch, n, m = problem.shape
    one = batch == 1 and problem.a.device.type == "cpu" and math.isinf(problem.relax[0])
    spread = problem.bounds.high - problem.bounds.low
    return one and n * m >= 1 << 16 and spread > -_cut(m, _WIDE) * float(problem.reg[0])


def _cut(columns: int, drift: float) -> float:
    """Return the exponent below its row's maximum from which an entry cannot count.

    It may gain `drift` while the largest entry loses as much.
    """
    return _LOST - 2 * drift - math.log(columns)


class SparseKernel:
    """What counts of one problem's kernel, in compressed rows."""

    def __init__(self, problem: Problem, kept: tuple[Array, Array, Array], v: Tensor) -> None:
        """Take -C_ij / reg, columns and row starts of what may count around v."""
        self._problem, self._log_a = problem, problem.a.log()
        self._kept, self._wide_v = kept, v.masked_fill(v == -math.inf, 0.0)
        self._wide = v
        self._least = float(problem.a.sum()) * math.exp(_LOST) / problem.shape[2] * 1e6
        self.focus(v)

    @staticmethod
    def build(problem: Problem, exponents: Iterable[Block], v: Tensor) -> "SparseKernel | None":
        """Gather what may count from blocks of v_j - C_ij / reg; None where too much does."""
        _, n, m = problem.shape
        cut, shift = _cut(m, _WIDE), v[0].masked_fill(v[0] == -math.inf, 0.0).numpy()
        values, columns, rows = [], [], []
        held = seen = 0
        for _, block in exponents:
            # of a transposed cost it is not
            s = block[0].contiguous().numpy()
            live = s > s.max(-1, keepdims=True) + cut
            # to take by place is many times quicker than to select by a mask
            at, counts = np.flatnonzero(live), np.count_nonzero(live, axis=1)
            column = at - np.repeat(m * np.arange(len(s)), counts)
            values.append(s.ravel().take(at) - shift.take(column))
            columns.append(column.astype(np.int32))
            rows.append(counts)
            held, seen = held + len(at), seen + len(s)
            if seen > _SAMPLE * n and held > _FULL * seen * m:
                return None
        starts = np.concatenate(([0], *rows)).cumsum(dtype=np.int32)
        return SparseKernel(problem, (np.concatenate(values), np.concatenate(columns), starts), v)

    def focus(self, v: Tensor) -> None:
        """Exponentiate around v what counts close to it."""
        # imported here: a solve without sharp plans never pays for it
        with needs("scipy"):
            from scipy.sparse import csr_array

        n, m = self._problem.shape[1:]
        values, columns, starts = self._kept
        s = values + v[0].numpy().take(columns)
        lengths = np.diff(starts)
        peak = np.zeros(n)
        # a row whose every pair is forbidden has no entries
        some = lengths > 0
        peak[some] = np.maximum.reduceat(s, starts[:-1][some]) if some.any() else 0.0
        s -= np.repeat(peak, lengths)
        live = np.flatnonzero(s > _cut(m, _CLOSE))
        fewer = np.searchsorted(live, starts).astype(np.int32)
        parts = np.exp(s.take(live)), columns.take(live), fewer
        self._kernel = csr_array(parts, shape=(n, m))
        self._u0, self._v0 = torch.from_numpy(-peak)[None], v.masked_fill(v == -math.inf, 0.0)
        # where it was judged what may count, and what counts
        self.around = [self._wide, v]

    def serves(self, v: Tensor) -> bool:
        """Say whether the entries kept are those that count around v, and look there if so."""
        weighs = v > -math.inf
        if _apart(v, self._v0, weighs) > _CLOSE:
            if _apart(v, self._wide_v, weighs) > _WIDE - _CLOSE:
                return False
            self.focus(v)
        return True

    def sweep(self, v: Tensor) -> tuple[Tensor, Tensor] | None:
        """Move the rows, then sum the columns; None where a column lives on what was dropped."""
        weighs = v > -math.inf
        beta = torch.where(weighs, v - self._v0, v).exp_()
        r = self._times(self._kernel, beta)
        u = move_rows(self._problem, self._log_a, r.log_() - self._u0)
        s = self._times(self._kernel.T, (u - self._u0).exp_()).mul_(beta)
        if bool(((s < self._least) & weighs).any()):
            return None
        return u, s.log_()

    def curve(self, u: Tensor, v: Tensor) -> Tensor:
        """Return P^T diag(1 / P 1) P."""
        with needs("scipy"):
            from scipy.sparse import diags_array

        factor, beta = self._scaled(u, v)
        half = diags_array(np.sqrt(factor)) @ self._kernel @ diags_array(beta)
        return torch.from_numpy((half.T @ half).toarray())[None]

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by that."""
        kernel, (factor, beta) = self._kernel, self._scaled(u, v)

        def product(x: Tensor) -> Tensor:
            inner = factor * (kernel @ (beta * x[0].numpy()))
            return torch.from_numpy(beta * (kernel.T @ inner))[None]

        return product

    @property
    def share(self) -> float:
        """What a product costs beside one that takes every pair."""
        n, m = self._problem.shape[1:]
        return float(_PLACE * self._kernel.nnz / (n * m))

    def _scaled(self, u: Tensor, v: Tensor) -> tuple[Array, Array]:
        """Return what the kernel's rows and columns are multiplied by in between and outside."""
        beta = torch.where(v > -math.inf, v - self._v0, v).exp_()[0].numpy()
        weight = (u - self._u0).exp_()[0].numpy()
        mass = self._kernel @ beta
        # P / (P 1) has no row factor, P has exp(u - u0)
        return np.divide(weight, mass, out=np.zeros_like(mass), where=mass > 0), beta

    @staticmethod
    def _times(kernel: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(kernel @ x[0].numpy())[None]


def _apart(v: Tensor, w: Tensor, where: Tensor) -> float:
    return float(torch.where(where, v - w, 0.0).abs_().amax())
