"""The sweep on a GPU: checks, allocates and launches the kernels. Imports triton: import it late.

Serves stored costs of any strides and clouds of most metrics, in float64 and float32 (half
precision in storage): exponents are formed in the potentials' dtype. Nothing waits for the device:
what may underflow is summed again by kernels that return at once where there is nothing to mend.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property

import torch
from torch import Tensor

from sinkhorn_ot.kernels import apply as products
from sinkhorn_ot.kernels import batched, dense_sweep, log_sums, point_cloud, steps, whole
from sinkhorn_ot.kernels import fixed as plain
from sinkhorn_ot.kernels.clouds import METRICS, Clouds, place
from sinkhorn_ot.kernels.whole_steps import HELD_STEPS
from sinkhorn_ot.problem import Cost, Dense, PointCloud, Problem, Streamed

from .protocol import Moves, Rules, Sweep, elasticity, sweep_apart


# pairs whose cost stays in a GPU's cache from sweep to sweep
_CACHED = 1 << 24
# problems that are sooner solved one by one than together, where none fills the device (predicted)
_ALONE = 16


def serves(problem: Problem) -> bool:
    """Say whether the kernels take this problem."""
    cost = problem.cost
    if isinstance(cost, PointCloud):
        return isinstance(cost.metric, str) and cost.metric in METRICS and cost.power == 1
    return _stored(cost) is not None


def kernels(problem: Problem) -> Sweep:
    """Return the implementation for the problem's cost."""
    if (stored := _stored(problem.cost)) is not None:
        return DenseKernels(problem, *stored, lengths=_lengths(problem))
    return CloudKernels(problem, _placed(problem.cost, problem.work).ended(_lengths(problem)))


def _stored(cost: Cost) -> tuple[Tensor, int] | None:
    """Return the tensor that holds costs, or with a sign of -1 scores, as it is stored."""
    if isinstance(cost, Dense):
        return cost.C, 1
    return cost.held if isinstance(cost, Streamed) else None


def _lengths(problem: Problem) -> Tensor | None:
    """Return after how many first rows and columns each problem has no more, (B, 2), int32.

    None where there is no padding. Nothing waits for the device.
    """
    if problem.there is None:
        return None
    ends = torch.empty(problem.shape[0], 2, dtype=torch.int32, device=problem.a.device)
    for there, end in zip(problem.there, ends.unbind(-1), strict=True):
        numbers = torch.arange(1, there.shape[1] + 1, dtype=torch.int32, device=there.device)
        torch.amax(there * numbers, -1, out=end)
    return ends


def _placed(cost: Cost, work: torch.dtype) -> Clouds:
    assert isinstance(cost, PointCloud)
    precision = "float64" if work == torch.float64 else "fp16x3"
    x, y = cost.scaled(cost.x), cost.scaled(cost.y)
    return place(x, y, metric=str(cost.metric), precision=precision)


class _Kernels:
    """What stored costs and clouds have in common."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @cached_property
    def _kappa(self) -> Tensor | None:
        """Return the elasticity of relaxed rows, (B,), as kernels take it; None for exact ones."""
        return None if math.isinf(self.problem.relax[0]) else elasticity(self.problem, 0)

    @cached_property
    def _inv_reg(self) -> Tensor:
        """Return 1 / reg of each problem, (B,), as kernels take it; most results need none."""
        return 1.0 / self.problem.reg

    def curve(self, u: Tensor, v: Tensor) -> Tensor:
        """Return P^T diag(1 / P 1) P."""
        one = torch.eye(v.shape[1], device=v.device, dtype=v.dtype).expand(len(v), -1, -1)
        return self._curved(u, v, one, self._masses(u, v))

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by P^T diag(1 / P 1) P."""
        mass = self._masses(u, v)
        return lambda x: self._curved(u, v, x[:, :, None], mass)[:, :, 0]

    def _masses(self, u: Tensor, v: Tensor) -> Tensor:
        return self.apply(u, v, torch.ones_like(v)[:, :, None])

    def _curved(self, u: Tensor, v: Tensor, x: Tensor, mass: Tensor) -> Tensor:
        y = torch.where(mass > 0, self.apply(u, v, x) / mass, 0.0)
        return self.apply(u, v, y, transpose=True)

    def moves(self, *, memory: int, growth: float, wait: int, begin: float) -> Moves | None:
        """Return a run of Anderson's steps, two launches each, or three for relaxed marginals.

        None too where a column's penalty is none that kernels know.
        """
        if memory > HELD_STEPS.value or self.problem.penalised:
            return None
        p = self.problem
        relaxed = None if p.exact else steps.Relaxed(p.a, p.reg, p.relax, p.dtype)
        return steps.Run(p.b, relaxed, memory=memory, growth=growth, wait=wait, begin=begin)

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x (B, n) over the rows, (B,)."""
        return x.sum(-1)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        raise NotImplementedError


class DenseKernels(_Kernels):
    """A stored cost: one read and one exponential per entry and sweep."""

    def __init__(
        self, problem: Problem, C: Tensor, sign: int = 1, lengths: Tensor | None = None
    ) -> None:
        """Take what is stored: costs, or scores if the sign is -1; and where padding begins."""
        super().__init__(problem)
        self._C, self._sign, self._lengths = C, sign, lengths

    @cached_property
    def _inv_reg(self) -> Tensor:
        """Return 1 / reg of each problem, (B,); minus that where scores are stored."""
        inv_reg = self.problem.reg.reciprocal()
        return inv_reg if self._sign > 0 else -inv_reg

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns, in logarithms that cannot underflow."""
        a, inv_reg = self.problem.a, self._inv_reg
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
            return batched.solve(self._C, p.a, p.b, self._inv_reg, n_iter)[:2]
        if p.shape[0] == 1 and p.shape[1] * p.shape[2] <= _CACHED and self._fits():
            u, v = whole.fixed(*next(self._each()), n_iter)
            return u[None], v[None]
        if p.exact and plain.serves(self._C, p.b.dtype):
            return plain.sweeps(self._C, p.a, p.b, self._inv_reg, n_iter, lengths=self._lengths)
        return None

    def whole(self, n_iter: int, tol: float) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Make plain sweeps of small problems in one launch; None where one is not small."""
        p = self.problem
        if not self._small():
            return None
        return batched.solve(self._C, p.a, p.b, self._inv_reg, n_iter, tol)

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
            yield C, p.a[k], p.b[k], self._inv_reg[k : k + 1]

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg)."""
        return log_sums.log_sum_rows(self._C, v, self._inv_reg)

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg)."""
        return log_sums.log_sum_columns(self._C, u, self._inv_reg)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        if transpose:
            return products.apply(self._C.mT, v, u, x, self._inv_reg)
        return products.apply(self._C, u, v, x, self._inv_reg)

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C>."""
        return self._sign * products.linear(self._C, u, v, self._inv_reg).sum(-1)

    def of(self, problem: Problem) -> Sweep:
        """Return the kernels of a problem with the same cost, or its transpose."""
        return kernels(problem)

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return DenseKernels(self.problem.at(reg), self._C, self._sign, self._lengths)

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        return kernels(self.problem.select(index))


class CloudKernels(_Kernels):
    """Costs made on chip from two clouds: O(n + m) memory."""

    def __init__(self, problem: Problem, clouds: Clouds) -> None:
        super().__init__(problem)
        self._clouds = clouds

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns, in logarithms that cannot underflow."""
        a, inv_reg = self.problem.a, self._inv_reg
        if self.problem.penalties[0] is not None:
            return sweep_apart(self, a.log(), v)
        return point_cloud.sweep(
            self._clouds, u, v, a, inv_reg, kappa=self._kappa, first=u is None, log=True
        )

    def repeat(self, v: Tensor, count: int) -> tuple[Tensor, int]:
        """Make plain steps where marginals are exact: columns answer as rows do."""
        p = self.problem
        if not p.exact:
            return v, 0
        u, before = None, None
        for _ in range(count):
            u = point_cloud.move_rows(self._clouds, u, v, p.a, self._inv_reg)
            # before the first step nothing is known of the columns' sums
            after = point_cloud.move_rows(self._clouds.swapped(), before, u, p.b, self._inv_reg)
            v = before = after
        return v, count

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg)."""
        return point_cloud.log_sum_rows(self._clouds, v, self._inv_reg)

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg)."""
        return point_cloud.log_sum_rows(self._clouds.swapped(), u, self._inv_reg)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        if transpose:
            return products.apply(self._clouds.swapped(), v, u, x, self._inv_reg)
        return products.apply(self._clouds, u, v, x, self._inv_reg)

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C>."""
        return products.linear(self._clouds, u, v, self._inv_reg).sum(-1)

    def of(self, problem: Problem) -> Sweep:
        """Return the kernels of a problem with the same clouds, either way round."""
        mine, other = self.problem.cost, problem.cost
        assert isinstance(mine, PointCloud)
        assert isinstance(other, PointCloud)
        same = mine.x is other.x and mine.y is other.y
        clouds = self._clouds if same else self._clouds.swapped()
        return CloudKernels(problem, clouds.ended(_lengths(problem)))

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return CloudKernels(self.problem.at(reg), self._clouds)

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        problem = self.problem.select(index)
        clouds = self._clouds if self.problem.shared else _placed(problem.cost, problem.work)
        return CloudKernels(problem, clouds.ended(_lengths(problem)))


def _together(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors as one batch; a single one without a copy."""
    return parts[0][None] if len(parts) == 1 else torch.stack(list(parts))
