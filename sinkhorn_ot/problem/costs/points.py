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
from sinkhorn_ot.problem.rows import ArrayLike, Block
from sinkhorn_ot.problem.show import shown

from .cost import MEMORY, Bounds, broadcast, flatten, tiles
from .functions import Function, numbers, tried, turned
from .metrics import METRICS, Metric, MetricName, metric_of


@shown
@dataclass(frozen=True, eq=False, init=False)
class PointCloud:
    """The cost between two clouds of points, computed in blocks: O(n + m) memory.

    The cost is never stored. Where it is small a solve stores the kernel made of it, exp(-C / reg),
    of n * m numbers, which is as fast as a stored cost.

    Args:
        x: Source points, shape (..., n, d).
        y: Target points, shape (..., m, d).
        metric: "sqeuclidean" |x - y|^2, "euclidean" |x - y|, "manhattan" sum |x_k - y_k|,
            "chebyshev" max |x_k - y_k|, "dot" `-<x, y>`, or "cosine" `1 - <x, y> / (|x| |y|)`. Or a
            function that returns what points x (..., r, d) and y (..., m, d), in float64, cost,
            (..., r, m); inf forbids a pair. It is called for copies of some rows x at a time, so
            that a row must depend on no other, and differentiated by autograd.
        memory: Bytes that a stored kernel may take; 0 never stores one. A solve beyond it computes
            the kernel at every sweep, block by block, which takes longer.
        power: What a distance is raised to, above zero: |x - y|^power for "euclidean", likewise for
            "manhattan" and "chebyshev". Others have 1. Where points coincide a power of at most one
            has a kink, whose derivative counts as zero.
        scale: What each coordinate is multiplied by before points are compared, (d,), non-negative;
            None for ones. Under "sqeuclidean" weights w of squared differences are sqrt(w) here.

    Raises:
        ValueError: If shapes, dtypes, devices, the metric or what goes with it do not fit.
    """

    x: Tensor
    y: Tensor
    metric: MetricName | Function
    memory: int
    power: float
    scale: Tensor | None

    def __init__(  # noqa: PLR0913
        self,
        x: ArrayLike,
        y: ArrayLike,
        metric: MetricName | Function = "sqeuclidean",
        memory: int = MEMORY,
        *,
        power: float = 1.0,
        scale: ArrayLike | None = None,
    ) -> None:
        x, y = _alike(x, y)
        # of sources others may hold all
        x = checks.at_least_dims("x", x, 2, "(..., n, d)", lacking=2)
        y = checks.at_least_dims("y", y, 2, "(..., m, d)")
        checks.count("memory", memory, at_least=0)
        if x.shape[-1] != y.shape[-1]:
            raise ValueError(
                f"x and y must have points of one dimension, got {x.shape[-1]} and {y.shape[-1]}"
            )
        if x.dtype != y.dtype:
            raise ValueError(f"x and y must share a dtype, got {x.dtype} and {y.dtype}")
        checks.same_device("y", y, x.device, "x")
        metric, power = _compared(metric, power)
        scale = None if scale is None else _scaling(scale, x)
        found = {"x": x, "y": y, "metric": metric, "power": power, "scale": scale}
        for name, value in {**found, "memory": memory}.items():
            object.__setattr__(self, name, value)
        _ = self.batch_shape
        if not isinstance(metric, str) and x.device.type != "meta" and x.numel():
            tried(metric, x, y)

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

    def first(self, n: int, m: int) -> "PointCloud":
        """Return the cost between the first points."""
        return replace(self, x=self.x[..., :n, :], y=self.y[..., :m, :])

    def transposed(self) -> "PointCloud":
        """Return the cost from target to source points."""
        metric = self.metric if isinstance(self.metric, str) else turned(self.metric)
        return replace(self, x=self.y, y=self.x, metric=metric)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the costs of rows start:stop, computed in float64."""
        left, right = self.factors
        return self.rule.join(left[:, start:stop], right)

    def tiles(self, size: int) -> Iterator[Block]:
        """Yield all rows in blocks of at most `size`."""
        return tiles(self, size)

    def validate(self) -> Bounds:
        """Raise unless every number is finite; return bounds on the entries."""
        checks.finite("x", checks.constant("x", self.x))
        checks.finite("y", checks.constant("y", self.y))
        if self.scale is not None:
            _not_below_zero(self.scale)
        return self._bounded(*self.placed)

    def bounds_of(self, x: Tensor, y: Tensor) -> Bounds:
        """Return bounds on the costs of other points; raise unless they are finite."""
        return self._bounded(*self._moved(x.detach(), y.detach()))

    def _bounded(self, x: Tensor, y: Tensor) -> Bounds:
        bounds = self.rule.bounds(x, y)
        if not math.isfinite(bounds.high):
            far = sum(float(t.norm(dim=-1).amax()) for t in (x, y))
            raise ValueError(f"x and y must have finite costs, got points {far:.3g} apart")
        return bounds

    def looked_at(self, C: Tensor, start: int) -> Tensor:
        """Return the costs of rows from `start`; raise if a function told what is no cost."""
        if not isinstance(self.metric, str):
            numbers(C, start)
        return C

    @functools.cached_property
    def rule(self) -> Metric:
        """How costs are made, bounded and differentiated."""
        return metric_of(self.metric, self.power)

    def scaled(self, points: Tensor) -> Tensor:
        """Return points as they are compared, (..., k, d)."""
        if self.scale is None:
            return points
        # half precision would lose digits that points have
        points = points.float() if points.dtype.itemsize < 4 else points
        return points * self.scale.to(points.dtype)

    def factors_of(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the costs of other points are made of, as a function of them."""
        return self.rule.factors(*self._moved(x, y))

    @functools.cached_property
    def placed(self) -> tuple[Tensor, Tensor]:
        """Both clouds, scaled, where rounding is least, in float64."""
        return self._moved(self.x.detach(), self.y.detach())

    def _moved(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return clouds in float64, where rounding is least."""
        return self.rule.place(self.scaled(x.double()), self.scaled(y.double()))

    @functools.cached_property
    def factors(self) -> tuple[Tensor, Tensor]:
        """What costs are made of, a block at a time: a row per point, in float64."""
        return self.rule.factors(*self.placed)


def _compared(metric: Any, power: Any) -> tuple[Any, float]:
    """Return a metric and a power of it; a squared distance has a name."""
    # a type is called to make something else
    function = callable(metric) and not isinstance(metric, type)
    name: MetricName | None = None
    if not function:
        name = checks.one_of("metric", metric, tuple(METRICS))
    power = checks.positive("power", power)
    if (name, power) == ("euclidean", 2):
        return "sqeuclidean", 1.0
    if power != 1 and not (name and METRICS[name].distance):
        distances = ", ".join(repr(row) for row in METRICS if METRICS[row].distance)
        raise ValueError(f"power must be 1 unless metric is one of {distances}, got {power!r}")
    return name or metric, power


def _scaling(scale: Any, x: Tensor) -> Tensor:
    """Return one number per coordinate."""
    if isinstance(scale, Tensor) and scale.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "scale requires grad, and is a constant here: multiply x and y by it, and they have "
            "its derivatives"
        )
    t = checks.tensor("scale", scale, whole=True)
    checks.present("scale", t)
    if t.shape != x.shape[-1:]:
        raise ValueError(
            f"scale must have shape ({x.shape[-1]},), a number per coordinate, got {tuple(t.shape)}"
        )
    t = t.double()
    # elsewhere numbers would be waited for: a solve looks at them
    if t.device.type == "cpu" and not torch.compiler.is_compiling():
        _not_below_zero(t)
    return t.to(x.device)


def _not_below_zero(scale: Tensor) -> None:
    checks.finite("scale", scale)
    if bool((scale < 0).any()):
        checks.refuse("scale", "be non-negative", scale, scale < 0)


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
