"""The sweep of clouds on a GPU, over all pairs."""

import torch
from torch import Tensor

from sinkhorn_ot.kernels import apply as products
from sinkhorn_ot.kernels import point_cloud
from sinkhorn_ot.kernels.clouds import Clouds, place
from sinkhorn_ot.problem import Cost, PointCloud, Problem
from sinkhorn_ot.sweeps.protocol import Sweep, sweep_apart

from .shared import Kernels, lengths


def placed(cost: Cost, work: torch.dtype) -> Clouds:
    """Return clouds as kernels take them, whatever reg is."""
    assert isinstance(cost, PointCloud)
    precision = "float64" if work == torch.float64 else "fp16x3"
    x, y = cost.scaled(cost.x), cost.scaled(cost.y)
    return place(x, y, metric=str(cost.metric), precision=precision)


class CloudKernels(Kernels):
    """Costs made on chip from two clouds: O(n + m) memory."""

    def __init__(self, problem: Problem, clouds: Clouds) -> None:
        super().__init__(problem)
        self._clouds = clouds

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns, in logarithms that cannot underflow."""
        a, inv_reg = self.problem.a, self.inv_reg
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
            u = point_cloud.move_rows(self._clouds, u, v, p.a, self.inv_reg)
            # before the first step nothing is known of the columns' sums
            after = point_cloud.move_rows(self._clouds.swapped(), before, u, p.b, self.inv_reg)
            v = before = after
        return v, count

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg)."""
        return point_cloud.log_sum_rows(self._clouds, v, self.inv_reg)

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg)."""
        return point_cloud.log_sum_rows(self._clouds.swapped(), u, self.inv_reg)

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x or P^T @ x."""
        if transpose:
            return products.apply(self._clouds.swapped(), v, u, x, self.inv_reg)
        return products.apply(self._clouds, u, v, x, self.inv_reg)

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return <P, C>."""
        return products.linear(self._clouds, u, v, self.inv_reg).sum(-1)

    def of(self, problem: Problem) -> Sweep:
        """Return the kernels of a problem with the same clouds, either way round."""
        mine, other = self.problem.cost, problem.cost
        assert isinstance(mine, PointCloud)
        assert isinstance(other, PointCloud)
        same = mine.x is other.x and mine.y is other.y
        clouds = self._clouds if same else self._clouds.swapped()
        return CloudKernels(problem, clouds.ended(lengths(problem)))

    def at(self, reg: Tensor) -> Sweep:
        """Return the same problems at another `reg`."""
        return CloudKernels(self.problem.at(reg), self._clouds)

    def select(self, index: Tensor) -> Sweep:
        """Return the problems at `index`."""
        problem = self.problem.select(index)
        clouds = self._clouds if self.problem.shared else placed(problem.cost, problem.work)
        return CloudKernels(problem, clouds.ended(lengths(problem)))
