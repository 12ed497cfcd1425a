"""The sweep on a GPU: checks, allocates and launches the kernels. Imports triton: import it late.

Serves float32 problems (half precision in storage) on any strides. Exponents and potentials are
float32 here. Nothing waits for the device: what may underflow is summed again by kernels that
return at once where there is nothing to mend.
"""

import math

import torch
from torch import Tensor

from .cost import Cost, Dense, PointCloud
from .kernels import apply as products
from .kernels import batched, codes, dense_sweep, features, log_sums, point_cloud
from .kernels.clouds import METRICS, Clouds, place
from .problem import Problem
from .sweep import Sweep, elasticity


_TINY = 1e-30


def serves(problem: Problem) -> bool:
    """Say whether the kernels take this problem."""
    cost = problem.cost
    fits = isinstance(cost, Dense) or (isinstance(cost, PointCloud) and cost.metric in METRICS)
    return fits and problem.work == torch.float32


def kernels(problem: Problem) -> Sweep:
    """Return the implementation for the problem's cost."""
    if isinstance(problem.cost, Dense):
        return DenseKernels(problem, problem.cost.C)
    return CloudKernels(problem, _placed(problem.cost))


def _placed(cost: Cost) -> Clouds:
    assert isinstance(cost, PointCloud)
    return place(cost.x, cost.y, metric=cost.metric)


class _Kernels:
    """What stored costs and clouds have in common."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._inv_reg = 1.0 / problem.reg
        exact = math.isinf(problem.relax[0])
        self._kappa = None if exact else elasticity(problem)[0].contiguous()

    def curve(self, u: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        """Return P^T diag(1 / P 1) P, or its product with x."""
        if x is None:
            x = torch.eye(v.shape[1], device=v.device).expand(len(v), -1, -1)
        mass = self.apply(u, v, torch.ones_like(v)[:, :, None])
        y = torch.where(mass > 0, self.apply(u, v, x) / mass, 0.0)
        return self.apply(u, v, y, transpose=True)

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x (B, n) over the rows, (B,)."""
        return x.sum(-1)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        raise NotImplementedError


class DenseKernels(_Kernels):
    """A stored cost: one read and one exponential per entry and sweep."""

    def __init__(self, problem: Problem, C: Tensor) -> None:
        super().__init__(problem)
        self._C = C

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns; those that underflow are summed again."""
        return dense_sweep_op(self._C, u, v, self.problem.a, self._inv_reg, self._kappa)

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
        return products.linear(self._C, u, v, self._inv_reg).sum(-1)

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return DenseKernels(self.problem.at(reg), self._C)

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        problem = self.problem.select(index)
        assert isinstance(problem.cost, Dense)
        return DenseKernels(problem, problem.cost.C)


class CloudKernels(_Kernels):
    """Costs made on chip from two clouds: O(n + m) memory."""

    def __init__(self, problem: Problem, clouds: Clouds) -> None:
        super().__init__(problem)
        self._clouds = clouds

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns, in logarithms that cannot underflow."""
        a, inv_reg = self.problem.a, self._inv_reg
        return point_cloud.sweep(
            self._clouds, u, v, a, inv_reg, kappa=self._kappa, first=u is None, log=True
        )

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

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return CloudKernels(self.problem.at(reg), self._clouds)

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        problem = self.problem.select(index)
        clouds = self._clouds if self.problem.shared else _placed(problem.cost)
        return CloudKernels(problem, clouds)


def small(problem: Problem, n_iter: int) -> tuple[Tensor, Tensor] | None:
    """Return both potentials after plain sweeps in one launch; None where that does not fit."""
    _, n, m = problem.shape
    if not isinstance(problem.cost, Dense) or max(n, m) > 128 or problem.relax != (math.inf,) * 2:
        return None
    return batched.solve(problem.cost.C, problem.a, problem.b, 1.0 / problem.reg, n_iter)[:2]


def dense_sweep_op(
    C: Tensor, u: Tensor | None, v: Tensor, a: Tensor, inv_reg: Tensor, kappa: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Launch one sweep over a stored cost; the meaning is `_ops.dense_sweep`."""
    u, s = dense_sweep.sweep(C, u, v, a, inv_reg, kappa=kappa, first=u is None)
    low = (s < _TINY) & (v > -math.inf)
    again = log_sums.log_sum_columns(C, u, inv_reg, only=low)
    return u, torch.where(low, again + v, s.log())


def cloud_sweep_op(
    x: Tensor,
    y: Tensor,
    metric: str,
    u: Tensor | None,
    v: Tensor,
    a: Tensor,
    inv_reg: Tensor,
    kappa: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Launch one sweep between two clouds; the meaning is `_ops.cloud_sweep`."""
    clouds = place(x, y, metric=metric)
    return point_cloud.sweep(clouds, u, v, a, inv_reg, kappa=kappa, first=u is None, log=True)


def dense_apply_op(C: Tensor, u: Tensor, v: Tensor, x: Tensor, inv_reg: Tensor) -> Tensor:
    """Launch P @ x for a stored cost."""
    return products.apply(C, u, v, x, inv_reg)


def cloud_apply_op(
    x: Tensor, y: Tensor, metric: str, u: Tensor, v: Tensor, z: Tensor, inv_reg: Tensor
) -> Tensor:
    """Launch P @ z for the plan between two clouds."""
    return products.apply(place(x, y, metric=metric), u, v, z, inv_reg)


def codes_op(S: Tensor, inv_eps: Tensor, n_iter: int, last: int) -> Tensor:
    """Launch SwAV's iterations and write the last codes; the meaning is `_ops.codes`."""
    r = torch.ones(len(S), S.shape[-1], device=S.device)
    f = codes.solve(S, r, inv_eps, n_iter)
    found, _ = codes.write(S[:, S.shape[1] - last :], f, inv_eps)
    assert found is not None
    return found


def feature_codes_op(z: Tensor, c: Tensor, inv_eps: Tensor, n_iter: int, last: int) -> Tensor:
    """Launch the same without a matrix of scores; the meaning is `_ops.feature_codes`."""
    r = torch.ones(len(z), c.shape[1], device=z.device)
    clouds = features.place_features(z, c)
    found, _ = features.write(clouds, features.solve(clouds, r, inv_eps, n_iter), inv_eps, last)
    assert found is not None
    return found
