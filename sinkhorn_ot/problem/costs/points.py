"""The cost between two clouds of points, which is computed where it is read."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import checks
from sinkhorn_ot.problem.rows import Block
from sinkhorn_ot.problem.show import shown

from .cost import MEMORY, Bounds, broadcast, flatten, tiles
from .metrics import METRICS


@shown
@dataclass(frozen=True, eq=False)
class PointCloud:
    """The cost between two clouds of points, computed in blocks: O(n + m) memory.

    The cost is never stored. Where it is small a solve stores the kernel made of it, exp(-C / reg),
    of n * m numbers, which is as fast as a stored cost.

    Args:
        x: Source points, shape (..., n, d).
        y: Target points, shape (..., m, d).
        metric: "sqeuclidean" |x - y|^2, "euclidean" |x - y|, "dot" -<x, y>, or
            "cosine" 1 - <x, y> / (|x| |y|).
        memory: Bytes that a stored kernel may take; 0 never stores one. A solve beyond it computes
            the kernel at every sweep, block by block, which takes longer.

    Raises:
        ValueError: If shapes, dtypes, devices or the metric do not fit.
    """

    x: Tensor
    y: Tensor
    metric: str = "sqeuclidean"
    memory: int = MEMORY

    def __post_init__(self) -> None:
        x, y = _alike(self.x, self.y)
        x = checks.at_least_dims("x", x, 2, "(..., n, d)")
        y = checks.at_least_dims("y", y, 2, "(..., m, d)")
        checks.one_of("metric", self.metric, tuple(METRICS))
        checks.count("memory", self.memory, at_least=0)
        if x.shape[-1] != y.shape[-1]:
            raise ValueError(
                f"x and y must have points of one dimension, got {x.shape[-1]} and {y.shape[-1]}"
            )
        if x.dtype != y.dtype:
            raise ValueError(f"x and y must share a dtype, got {x.dtype} and {y.dtype}")
        checks.same_device("y", y, x.device, "x")
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)
        _ = self.batch_shape

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions, broadcast."""
        return broadcast("x", self.x.shape[:-2], "y", self.y.shape[:-2])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of source and target points."""
        return self.x.shape[-2], self.y.shape[-2]

    @property
    def dtype(self) -> torch.dtype:
        """Storage type of the points."""
        return self.x.dtype

    @property
    def device(self) -> torch.device:
        """Where the points live."""
        return self.x.device

    @property
    def stored(self) -> bool:
        """Whether the entries are in memory: they are not."""
        return False

    def flat(self, batch: torch.Size) -> "PointCloud":
        """Return the costs of a batch with one batch dimension."""
        one = self.batch_shape.numel() == 1
        x, y = checks.constant("x", self.x), checks.constant("y", self.y)
        return replace(self, x=flatten(x, batch, one), y=flatten(y, batch, one))

    def select(self, index: Tensor) -> "PointCloud":
        """Return the problems at `index` of a flat batch."""
        return replace(self, x=self.x[index], y=self.y[index])

    def transposed(self) -> "PointCloud":
        """Return the cost from target to source points."""
        return replace(self, x=self.y, y=self.x)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the costs of rows start:stop, computed in float64."""
        left, right = self.factors
        return METRICS[self.metric].join(left[:, start:stop], right)

    def tiles(self, size: int) -> Iterator[Block]:
        """Yield all rows in blocks of at most `size`."""
        return tiles(self, size)

    def validate(self) -> Bounds:
        """Raise unless every coordinate is finite; return bounds on the entries."""
        checks.finite("x", checks.constant("x", self.x))
        checks.finite("y", checks.constant("y", self.y))
        x, y = self._placed
        long_x, long_y = x.norm(dim=-1).amax(-1), y.norm(dim=-1).amax(-1)
        reach, span = float((long_x + long_y).amax()), float((long_x * long_y).amax())
        bounds = METRICS[self.metric].bounds(reach, span)
        if not math.isfinite(bounds.high):
            raise ValueError(f"x and y must have finite costs, got points {reach:.3g} apart")
        return bounds

    @functools.cached_property
    def _placed(self) -> tuple[Tensor, Tensor]:
        """The clouds in float64, where rounding is least."""
        x, y = self.x.detach().double(), self.y.detach().double()
        return METRICS[self.metric].place(x, y)

    @functools.cached_property
    def factors(self) -> tuple[Tensor, Tensor]:
        """What costs are made of, a block at a time: a row per point, in float64."""
        return METRICS[self.metric].factors(*self._placed)


def _alike(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Return both clouds; whole numbers take the other's dtype where that holds them."""
    t, u = (checks.tensor(k, p, whole=True, graph=True) for k, p in (("x", x), ("y", y)))
    for one, other, given in ((t, u, x), (u, t, y)):
        if one.dtype != other.dtype and not _floating(given):
            same = one.to(other.dtype)
            if bool((same == one).all()):
                return (same, u) if one is t else (t, same)
    return t, u


def _floating(x: Any) -> bool:
    return x.is_floating_point() if isinstance(x, Tensor) else np.asarray(x).dtype.kind == "f"
