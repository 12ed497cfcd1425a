"""Which points of a padded batch are there; what stands in the others' place is never read.

Points that are not there get a weight of zero, which is exact, and numbers of points that are.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypeAliasType

from sinkhorn_ot.problem import checks
from sinkhorn_ot.problem.costs import Cost, Dense, PointCloud, as_cost, broadcast, padded, repeated
from sinkhorn_ot.problem.rows import ArrayLike

from .masses import nothing


# for rows and for columns: truths, or how many of the first points are there
Mask = TypeAliasType("Mask", tuple[int | ArrayLike | None, int | ArrayLike | None])
# the points that are there, (..., n) and (..., m)
There = tuple[Tensor, Tensor]
# what messages call the two sides, and what is on them
_SIDES = (("rows", "a"), ("columns", "b"))


def masked(
    cost: Any, a: Any, b: Any, mask: Any, values: bool = True
) -> tuple[Cost, Tensor, Tensor, There]:
    """Return a cost and weights whose padding may be read, and which points are there.

    They are functions of what was given, which has no derivative in the padding.

    Args:
        cost: Costs (..., n, m), or clouds, with anything in the padding.
        a: Source weights (..., n), those in the padding unread; None means the same for all there.
        b: Target weights (..., m).
        mask: A pair (rows, columns), each None, booleans (..., n) that are true where a point is
            there, or whole numbers (...): how many of the first points are.
        values: Whether to look at the numbers too, which on CUDA waits for the device.

    Raises:
        ValueError: If the mask breaks a rule, or leaves a problem no point or no weight.
    """
    if not isinstance(mask, (tuple, list)) or len(mask) != 2:
        raise ValueError(f"mask must be a pair (rows, columns), got {mask!r:.60}")
    cost = as_cost(cost)
    if not isinstance(cost, (Dense, PointCloud)):
        raise ValueError(
            f"mask needs a stored cost or a PointCloud, got a {type(cost).__name__}: give what is "
            "padded a weight of zero"
        )
    there = tuple(
        _side(kind, side, size, cost, values)
        for (kind, _), side, size in zip(_SIDES, mask, cost.shape, strict=True)
    )
    a, b = (
        _weighed(name, w, side, values)
        for (_, name), w, side in zip(_SIDES, (a, b), there, strict=True)
    )
    rows, columns = there
    both = broadcast("mask (rows)", rows.shape[:-1], "mask (columns)", columns.shape[:-1])
    broadcast("mask", both, "cost", cost.batch_shape)
    if isinstance(cost, Dense):
        return padded(cost.C, rows, columns), a, b, (rows, columns)
    x = repeated(cost.x, rows)
    same = cost.x is cost.y and mask[0] is mask[1]
    cloud = replace(cost, x=x, y=x if same else repeated(cost.y, columns))
    return cloud, a, b, (rows, columns)


def _side(kind: str, side: Any, size: int, cost: Cost, values: bool) -> Tensor:
    """Return which points of a side are there, (..., size)."""
    name = f"mask ({kind})"
    if side is None:
        return torch.ones(size, dtype=torch.bool, device=cost.device)
    if isinstance(side, Tensor):
        checks.present(name, checks.plain(name, side))
        t = checks.same_device(name, side, cost.device, "cost")
    else:
        t = torch.from_numpy(checks.array(name, side)).to(cost.device)
    if t.dtype != torch.bool:
        t = _first(name, t, size, values)
    elif t.ndim == 0 or t.shape[-1] != size:
        raise ValueError(
            f"{name} must have shape (..., {size}) to fit a cost of {tuple(cost.shape)}, "
            f"got {tuple(t.shape)}"
        )
    checks.at_least_dims(name, t, 1, f"(..., {size})")
    if values and bool((empty := ~t.any(-1)).any()):
        where = f"problem {checks.place(checks.first_index(empty))} has" if t.ndim > 1 else "got"
        raise ValueError(f"{name} must leave every problem some {kind}: {where} none")
    return t


def _first(name: str, count: Tensor, size: int, values: bool) -> Tensor:
    """Return the first points, as many as are counted."""
    if count.is_floating_point() or count.is_complex():
        raise ValueError(
            f"{name} must be booleans (..., {size}) or whole numbers (...), got dtype "
            f"{str(count.dtype).removeprefix('torch.')}"
        )
    bad = (count < 0) | (count > size)
    if values and bool(bad.any()):
        at = checks.first_index(bad) if count.ndim else ()
        where = f" at index {checks.place(at)}" if at else ""
        raise ValueError(
            f"{name} must count from 1 to {size} first points, got {int(count[at])}{where}"
        )
    return torch.arange(size, device=count.device) < count[..., None]


def _weighed(name: str, w: Any, there: Tensor, values: bool) -> Tensor:
    """Return the weights of what is there, zero elsewhere; uniform ones if none are given."""
    if w is None or nothing(w):
        return there / there.sum(-1, keepdim=True, dtype=torch.float64)
    t = checks.tensor(name, w, whole=True, graph=True)
    if t.ndim == 0 or t.shape[-1] != there.shape[-1]:
        # what is wrong is told by whoever checks weights
        return t
    broadcast(name, t.shape[:-1], "mask", there.shape[:-1])
    t = torch.where(there, t, 0.0)
    if values and bool((none := (t == 0).all(-1)).any()):
        where = f" in problem {checks.place(checks.first_index(none))}" if none.ndim else ""
        raise ValueError(
            f"{name} must have some positive weight among the points that mask says are there, "
            f"got all zeros{where}"
        )
    return t
