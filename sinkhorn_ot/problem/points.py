"""The cost between two clouds of points, which is computed and never stored."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import checks
from .cost import Bounds, broadcast, flatten, tiles
from .rows import Block


METRICS = ("sqeuclidean", "euclidean", "dot", "cosine")


@dataclass(frozen=True, eq=False)
class PointCloud:
    """The cost between two clouds of points, computed in blocks and never stored: O(n + m) memory.

    Args:
        x: Source points, shape (..., n, d).
        y: Target points, shape (..., m, d).
        metric: "sqeuclidean" |x - y|^2, "euclidean" |x - y|, "dot" -<x, y>, or
            "cosine" 1 - <x, y> / (|x| |y|).

    Raises:
        ValueError: If shapes, dtypes, devices or the metric do not fit.
    """

    x: Tensor
    y: Tensor
    metric: str = "sqeuclidean"

    def __post_init__(self) -> None:
        x = checks.at_least_dims("x", checks.tensor("x", self.x), 2, "(..., n, d)")
        y = checks.at_least_dims("y", checks.tensor("y", self.y), 2, "(..., m, d)")
        checks.one_of("metric", self.metric, METRICS)
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
        return PointCloud(flatten(self.x, batch, one), flatten(self.y, batch, one), self.metric)

    def select(self, index: Tensor) -> "PointCloud":
        """Return the problems at `index` of a flat batch."""
        return PointCloud(self.x[index], self.y[index], self.metric)

    def transposed(self) -> "PointCloud":
        """Return the cost from target to source points."""
        return PointCloud(self.y, self.x, self.metric)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the costs of rows start:stop, computed in float64."""
        if self.metric == "euclidean":
            # a root would double the digits that a product loses between close points
            x, y = self._placed
            mode = "donot_use_mm_for_euclid_dist"
            return torch.cdist(x[:, start:stop], y, compute_mode=mode)
        left, right = self._factors
        C = torch.matmul(left[:, start:stop], right.mT)
        return C.clamp_(min=0) if self.metric == "sqeuclidean" else C

    def tiles(self, size: int) -> Iterator[Block]:
        """Yield all rows in blocks of at most `size`."""
        return tiles(self, size)

    def validate(self) -> Bounds:
        """Raise unless every coordinate is finite; return bounds on the entries."""
        checks.finite("x", self.x)
        checks.finite("y", self.y)
        x, y = self._placed
        long_x, long_y = x.norm(dim=-1).amax(-1), y.norm(dim=-1).amax(-1)
        reach, span = float((long_x + long_y).amax()), float((long_x * long_y).amax())
        low, high = {
            "sqeuclidean": (0.0, reach**2),
            "euclidean": (0.0, reach),
            "dot": (-span, span),
            "cosine": (0.0, 2.0),
        }[self.metric]
        if not math.isfinite(high):
            raise ValueError(f"x and y must have finite costs, got points {reach:.3g} apart")
        return Bounds(low, high)

    @functools.cached_property
    def _placed(self) -> tuple[Tensor, Tensor]:
        """The clouds in float64, centred or normalised where the metric allows it."""
        x, y = self.x.double(), self.y.double()
        if self.metric in ("sqeuclidean", "euclidean"):
            # distances do not see the origin, rounding does
            centre = (x.mean(-2, keepdim=True) + y.mean(-2, keepdim=True)) / 2
            return x - centre, y - centre
        if self.metric == "cosine":
            normalize = torch.nn.functional.normalize
            return normalize(x, dim=-1), normalize(y, dim=-1)
        return x, y

    @functools.cached_property
    def _factors(self) -> tuple[Tensor, Tensor]:
        """Two factors whose product is the cost, before the root: one matrix product a block."""
        x, y = self._placed
        one_x, one_y = torch.ones_like(x[..., :1]), torch.ones_like(y[..., :1])
        if self.metric == "dot":
            return -x, y
        if self.metric == "cosine":
            return torch.cat([-x, one_x], -1), torch.cat([y, one_y], -1)
        x2, y2 = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
        return torch.cat([-2 * x, x2, one_x], -1), torch.cat([y, one_y, y2], -1)
