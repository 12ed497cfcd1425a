"""Which kernels serve which cost."""

import math

from sinkhorn_ot.kernels.clouds import METRICS
from sinkhorn_ot.problem import PointCloud, Problem
from sinkhorn_ot.sweeps.protocol import LEFT_OUT

from .clouds import CloudKernels, placed
from .dense import DenseKernels, stored
from .near import SIZE, NearKernels
from .shared import lengths


# pairs and dimensions from and to which tiles that cannot count are left out, and the share of
# tiles up to which they are (predicted)
_PAIRS, _DIMENSIONS, _SHARE = 1 << 29, 8, 0.5
# what an exponent may be below that of its row's sum and count, about
_REACH = 25.0


def serves(problem: Problem) -> bool:
    """Say whether the kernels take this problem."""
    cost = problem.cost
    if isinstance(cost, PointCloud):
        return isinstance(cost.metric, str) and cost.metric in METRICS and cost.power == 1
    return stored(cost) is not None


def kernels(problem: Problem, tol: float = 1e-6) -> DenseKernels | CloudKernels | NearKernels:
    """Return the implementation for the problem's cost, good to `tol`."""
    if stored(problem.cost) is not None:
        return DenseKernels.of_stored(problem)
    if near(problem):
        return NearKernels.of_clouds(problem, math.log(tol * LEFT_OUT))
    return CloudKernels(problem, placed(problem.cost, problem.work).ended(lengths(problem)))


def near(problem: Problem) -> bool:
    """Say whether few tiles count, as far as the number of points, their extent and reg tell.

    Points in a cube of which pairs within a distance count, and blocks that are cubes.
    """
    cost, (batch, n, m) = problem.cost, problem.shape
    if not isinstance(cost, PointCloud) or batch > 1 or n * m < _PAIRS:
        return False
    d, high = cost.x.shape[-1], problem.bounds.high
    if cost.metric != "sqeuclidean" or d > _DIMENSIONS or not 0 < high < math.inf:
        return False
    radius = math.sqrt(_REACH * problem.least_reg * d / high)
    side = min(1.0, 2 * radius + float((SIZE / max(n, m)) ** (1 / d)))
    return float(side**d) < _SHARE
