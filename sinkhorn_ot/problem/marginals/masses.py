"""The two marginals: which rule each follows, and weights of one mass that numbers can hold."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.problem import checks
from sinkhorn_ot.problem.costs import Cost
from sinkhorn_ot.problem.others import needs


Array = npt.NDArray[np.float64]
# weights, or masses of them: on a CPU an array, whose calls are shorter
Weights = Tensor | Array

# how far two masses may differ by rounding alone, per dtype of the weights
_MASS_RTOL = {
    # such weights often come from float32
    torch.float64: 2e-7,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}
# steps from pair to pair that reach all points of most patterns
_STEPS = 3
# what who passes two clouds is told
_CLOUDS = ": if these are points, the cost is PointCloud(x, y)"
# total weights whose products float32 holds
HELD = (1e-18, 1e18)


def weights(name: str, w: Any, size: int, cost: Cost, values: bool) -> Tensor:
    """Return the weights of one side, checked; uniform ones if none are given."""
    if w is None or nothing(w):
        # an empty list is POT's word for uniform
        return uniform((size,), torch.float64, cost)
    t = checks.at_least_dims(name, checks.tensor(name, w, whole=True), 1, f"(..., {size})")
    checks.same_device(name, t, cost.device, "cost")
    if t.shape[-1] != size:
        # points side by side, where a matrix of their costs is meant
        clouds = t.ndim > 1 and t.shape[-1] == cost.shape[-1] and cost.stored
        raise ValueError(
            f"{name} must have shape (..., {size}) to fit a cost of {tuple(cost.shape)}, "
            f"got {tuple(t.shape)}" + _CLOUDS * clouds
        )
    return checks.weights(name, t) if values else t


def uniform(shape: tuple[int, ...], dtype: torch.dtype, cost: Cost) -> Tensor:
    """Return weights of mass one that are all the same."""
    return checks.full(shape, 1.0 / shape[-1], dtype, cost.device)


def nothing(w: Any) -> bool:
    """Say whether weights are an empty list, which means uniform ones."""
    return w.shape == (0,) if isinstance(w, np.ndarray) else isinstance(w, (list, tuple)) and not w


def flat(w: Tensor, batch: torch.Size, dtype: torch.dtype, copy: bool) -> Weights:
    """Return weights (..., n) as (B, n) of a dtype, which may be the caller's own if not a copy."""
    host = w.device.type == "cpu"
    if not host or w.dtype != dtype:
        w = w.to(dtype, copy=copy and not host)
    w = w.expand(*batch, w.shape[-1]).reshape(-1, w.shape[-1]) if batch else w[None]
    if not host:
        return w
    return w.numpy().copy() if copy else w.numpy()


def tensor(w: Weights) -> Tensor:
    """Return weights as the problem holds them."""
    return w if isinstance(w, Tensor) else torch.from_numpy(w)


def total(a: Weights, b: Weights) -> Weights:
    """Return the masses of weights (B, n) and (B, m), (2, B)."""
    # a sum of many float32 numbers may itself be further off than they are
    if not isinstance(a, Tensor):
        return np.array([np.add.reduce(a, -1), np.add.reduce(b, -1)])
    # where launches count, without one to put both together
    masses = torch.empty((2, len(a)), dtype=torch.float64, device=a.device)
    for w, mass in zip((a, tensor(b)), masses, strict=True):
        torch.sum(w, -1, dtype=torch.float64, out=mass)
    return masses


def held(masses: Weights) -> None:
    """Require masses whose squares, of which values are made, are float32 numbers."""
    # one problem's are the extremes themselves
    if isinstance(masses, Tensor) and masses.shape[1] > 1:
        masses = torch.stack(torch.aminmax(masses, dim=1), 1)
    ends: list[list[float]] = masses.tolist()
    for name, side in zip("ab", ends, strict=True):
        low, high = min(side), max(side)
        if not (HELD[0] <= low and high <= HELD[1]):
            mass = low if low < HELD[0] else high
            raise ValueError(
                f"{name} must have a total weight from {HELD[0]:g} to {HELD[1]:g} for an answer "
                f"in float32, got {mass:.3g}: normalise it, or give the cost in float64"
            )


def mass_rtol(a: Tensor, b: Tensor) -> float:
    """Return how far the masses of weights in these dtypes may differ by rounding alone."""
    # each halving of a pairwise sum may round once, and even float64 weights come from float32
    longest = max(a.shape[-1], b.shape[-1])
    summed = torch.finfo(torch.float32).eps * math.log2(longest + 1)
    return max(_MASS_RTOL[a.dtype], _MASS_RTOL[b.dtype], summed)


def equal_mass(masses: Weights, b: Weights, rtol: float) -> Tensor:
    """Require one mass on both sides, (2, B); return `b` scaled to match to the last digit."""
    ratio: Any = masses[0] / masses[1]
    if rtol < math.inf and _apart(masses, ratio) > rtol:
        k = checks.first_index((torch.as_tensor(ratio) - 1).abs() > rtol)[0]
        where = f" in problem {k}" if len(ratio) > 1 else ""
        raise ValueError(
            f"a and b must have the same total mass, got {float(masses[0, k]):.9g} and "
            f"{float(masses[1, k]):.9g}{where}: normalise them, or relax a marginal (unbalanced=)"
        )
    if not isinstance(b, Tensor):
        return torch.from_numpy(b * ratio[:, None])
    # the product has the digits of the ratio before it has those of the weights
    return torch.mul(b, ratio[:, None], out=torch.empty_like(b))


def _apart(masses: Weights, ratio: Any) -> float:
    """Return by how much, relatively, the masses of a problem differ at most."""
    if len(ratio) == 1:
        # the division is left to the host, which would have to wait for the other one
        (a,), (b,) = masses.tolist()
        return float(abs(a / b - 1))
    return max(abs(end - 1) for end in checks.extremes(torch.as_tensor(ratio)))


def even(a: Tensor, b: Tensor, allowed: Tensor, rtol: float) -> Tensor:
    """Return `b` (m,) with the mass of `a` (n,) in each group of points that only serve each other.

    There it is as in the whole, where masses must be equal, but for the rounding of weights.

    Args:
        a: Source weights.
        b: Target weights.
        allowed: Which pairs are, (n, m).
        rtol: How far the masses of a group may differ by rounding; who differ more are left alone.
    """
    used = allowed & (a > 0)[:, None] & (b > 0)
    rows, columns = used[:, :1].any(-1), used[:1].any(0)
    # most are one group, as a few steps show
    for _ in range(_STEPS):
        rows = used[:, columns].any(-1)
        columns = used[rows].any(0)
    if bool((columns | (b == 0)).all()) and bool((rows | (a == 0)).all()):
        return b
    # imported here: whoever forbids nothing never pays for it
    with needs("scipy"):
        from scipy.sparse import block_array, csr_array
        from scipy.sparse.csgraph import connected_components

    pairs = csr_array(used.numpy())
    _, names = connected_components(block_array([[None, pairs], [pairs.T, None]]), directed=False)
    group = torch.from_numpy(names).long()
    masses = [b.new_zeros(int(group.max()) + 1) for _ in range(2)]
    for mass, w, index in zip(masses, (a, b), (group[: len(a)], group[len(a) :]), strict=True):
        mass.index_add_(0, index, w)
    ratio = masses[0] / masses[1]
    return b * torch.where((ratio - 1).abs() <= rtol, ratio, 1.0)[group[len(a) :]]
