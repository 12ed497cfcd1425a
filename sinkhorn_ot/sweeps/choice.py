"""Which implementation of the sweep serves which cost, batch and device."""

import math

import torch

from sinkhorn_ot.problem import GridCost, PointCloud, Problem, Spread, has_triton

from .over_columns import OverColumns
from .over_ranks import OverRanks
from .portable import PASS, BySize, Near, OnTheFly, Separable, SharedKernel, StoredKernel, groups
from .protocol import LEFT_OUT, Bare, Sweep


# share of the mass from which a pair's rounding in single precision shows in marginals
_ALONE = 1 / 16
# pairs and dimensions from and to which it pays to look at near points only where a kernel could be
# held, and dimensions where it could not; costs beside reg from which it does in either case; and
# the logarithm of what may then be left out where ranks each do so
_PAIRS, _FLAT, _DIMENSIONS = 1 << 25, 3, 8
_VERY_SHARP, _SHARP = 500.0, 100.0
_ROUNDING = math.log(1e-17)
# dimensions of a plane, points at which one looks around, cost over reg up to which others count,
# and what a pair that counts takes, twice, in bytes
_PLANE, _LOOKS, _COUNTS, _BYTES = 2, 32, 14.0, 16
# what passes of a result are good to that nobody solves
_TOL = 1e-9


def choose(problem: Problem, tol: float) -> Sweep:
    """Return the implementation for `problem`, whose kernel is good to `tol`.

    On a GPU the Triton kernels serve stored costs and clouds; costs that are streamed, those of
    grids and machines without triton are served by the portable code, as everything on a CPU is.
    Rows that others hold are swept by them.
    """
    if problem.spread is None:
        return _of_own(problem, tol)
    return _over_ranks(problem, _of_own(problem.block, tol, alone=False), problem.spread)


def _over_ranks(problem: Problem, local: Sweep, spread: Spread) -> OverRanks:
    slab = local if problem.beside is None else OverColumns(problem, local)
    return OverRanks(slab, spread.ranks, problem)


def _of_own(problem: Problem, tol: float, *, alone: bool = True) -> Sweep:
    if problem.shape[1] == 0:
        return OnTheFly(problem)
    bare = _bare(problem, tol, alone=alone)
    return _storing(problem, tol) if bare is None else bare


def _bare(problem: Problem, tol: float, *, alone: bool = True) -> Sweep | None:
    """Return what serves a problem without a kernel that is held; None where that had better be."""
    # what a rank leaves out the others do not know of: let it be rounding
    lost = math.log(tol * LEFT_OUT) if alone else _ROUNDING
    if (kernels := _kernels(problem, math.exp(lost) / LEFT_OUT)) is not None:
        return kernels
    if isinstance(problem.cost, GridCost):
        return Separable(problem)
    if near(problem):
        return Near(problem, lost, roughly=alone)
    return None


def _storing(problem: Problem, tol: float) -> Sweep:
    """Return what holds a kernel, where there is room for one."""
    store = torch.float32 if in_single(problem, tol) else torch.float64
    batch, n, m = problem.shape
    for dtype in (store, torch.float64):
        if one_kernel(problem, dtype):
            return SharedKernel(problem, dtype)
    held = batch * n * m * store.itemsize
    if held <= problem.cost.memory or (problem.cost.stored and not problem.shared):
        return StoredKernel(problem, store)
    return OnTheFly(problem)


def passes(problem: Problem, sweep: Sweep | None) -> Sweep:
    """Return what makes the few passes that a result may need, holding no storage.

    Args:
        problem: The problem of the result.
        sweep: What has swept it, or its transpose, if anything has.
    """
    if problem.spread is not None:
        local = sweep.local if isinstance(sweep, OverRanks) else None
        local = local.local if isinstance(local, OverColumns) else local
        return _over_ranks(problem, _passes(problem.block, local), problem.spread)
    return _passes(problem, sweep)


def afresh(problem: Problem) -> Sweep:
    """Return what makes these passes for a result that nothing here has swept."""
    return passes(problem, _bare(problem, _TOL) if problem.a.numel() else None)


def _passes(problem: Problem, sweep: Sweep | None) -> Sweep:
    # asking a protocol takes long beside a small problem
    if sweep is None or not isinstance(sweep, Bare):
        parts = groups(problem, PASS)
        return BySize(problem, parts) if parts else OnTheFly(problem)
    return sweep.of(problem)


def near(problem: Problem) -> bool:
    """Say whether few pairs of points count, and these can be told by where they are."""
    if (cost := _squares(problem)) is None:
        return False
    _, n, m = problem.shape
    held = n * m * problem.work.itemsize <= cost.memory
    # what costs a little to leave out is not worth that where all can be held
    if held and (n * m < _PAIRS or cost.x.shape[-1] > _FLAT):
        return False
    return problem.bounds.high > (_VERY_SHARP if held else _SHARP) * problem.least_reg


def narrow(problem: Problem) -> bool:
    """Say whether points of a plane have a plan of which what counts can be held."""
    if problem.spread is not None or not near(problem):
        return False
    assert isinstance(problem.cost, PointCloud)
    points, far = problem.cost.placed[1][0], _COUNTS * problem.least_reg
    if points.shape[1] > _PLANE:
        return False
    looks = points[:: math.ceil(len(points) / _LOOKS)]
    around = sum(int(((points - y).square().sum(1) <= far).sum()) for y in looks)
    return problem.shape[1] * around / len(looks) * _BYTES <= problem.cost.memory


def placed(problem: Problem) -> PointCloud | None:
    """Return the cost if it is made of squares between so many points that trees of them pay."""
    _, n, m = problem.shape
    return _squares(problem) if n * m >= _PAIRS and problem.spread is None else None


def _squares(problem: Problem) -> PointCloud | None:
    """Return the cost if it is made of squares between points in few dimensions, on a CPU."""
    cost = problem.cost
    if not isinstance(cost, PointCloud) or problem.shape[0] > 1:
        return None
    if problem.shift or problem.a.device.type != "cpu":
        return None
    squares = cost.metric == "sqeuclidean" and cost.x.shape[-1] <= _DIMENSIONS
    return cost if squares else None


def _kernels(problem: Problem, tol: float) -> Sweep | None:
    if problem.a.device.type != "cuda" or not has_triton():
        return None
    # imported here: a CPU never pays for triton
    from . import gpu

    return gpu.kernels(problem, tol) if gpu.serves(problem) else None


def in_single(problem: Problem, tol: float) -> bool:
    """Say whether a kernel in single precision is good to `tol`.

    No pair may carry so much that the rounding of its kernel alone would show.
    """
    if problem.dtype != torch.float32 or tol < 1e-7:
        return False
    most = torch.minimum(problem.a.amax(-1), problem.b.amax(-1)) / problem.masses[0]
    return bool((most < _ALONE).all())


def one_kernel(problem: Problem, dtype: torch.dtype = torch.float64) -> bool:
    """Say whether one kernel in a format serves all problems of a batch."""
    if problem.shape[0] == 1 or not problem.shared or bool((problem.reg != problem.reg[0]).any()):
        return False
    span = (problem.bounds.high - problem.bounds.low) / float(problem.reg[0])
    return span <= SharedKernel.SPAN[dtype]
