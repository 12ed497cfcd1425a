"""Metrics: what one point and another cost, a row of a table each."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from sinkhorn_ot.problem.show import shown

from . import functions
from .cost import Bounds


Pair = tuple[Tensor, Tensor]
MetricName = Literal["sqeuclidean", "euclidean", "manhattan", "chebyshev", "dot", "cosine"]


@dataclass(frozen=True)
class Metric:
    """How costs are made of two clouds in float64, (..., n, d) and (..., m, d).

    Attributes:
        place: Moves the clouds to where rounding is least and the cost the same.
        factors: Makes of placed clouds, once, two tensors with a row per point, (..., n, k) and
            (..., m, k).
        join: Makes the costs, (..., rows, m), of some rows of the first factor and the second.
        bounds: Bounds the costs of two placed clouds.
        pull: Makes of both factors and derivatives by the costs those by the factors.
        distance: Whether the costs are distances, whose powers are costs too.
    """

    place: Callable[[Tensor, Tensor], Pair]
    factors: Callable[[Tensor, Tensor], Pair]
    join: Callable[[Tensor, Tensor], Tensor]
    bounds: Callable[[Tensor, Tensor], Bounds]
    pull: Callable[[Tensor, Tensor, Tensor], Pair]
    distance: bool = False

    @property
    def bilinear(self) -> bool:
        """Whether the costs are the product of the factors, but for rounding below zero."""
        return self.pull is _pull_product


def _as_they_are(x: Tensor, y: Tensor) -> Pair:
    return x, y


def _centred(x: Tensor, y: Tensor) -> Pair:
    # distances do not see the origin, rounding does: so that it has no derivatives either
    centre = ((x.mean(-2, keepdim=True) + y.mean(-2, keepdim=True)) / 2).detach()
    return x - centre, y - centre


def _normalised(x: Tensor, y: Tensor) -> Pair:
    normalize = torch.nn.functional.normalize
    return normalize(x, dim=-1), normalize(y, dim=-1)


def _of_squares(x: Tensor, y: Tensor) -> Pair:
    """Return factors whose product is |x|^2 - 2 <x, y> + |y|^2."""
    one_x, one_y = _ones(x), _ones(y)
    x2, y2 = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    return torch.cat([-2 * x, x2, one_x], -1), torch.cat([y, one_y, y2], -1)


def _of_one_minus(x: Tensor, y: Tensor) -> Pair:
    """Return factors whose product is 1 - <x, y>."""
    return torch.cat([-x, _ones(x)], -1), torch.cat([y, _ones(y)], -1)


def _of_minus(x: Tensor, y: Tensor) -> Pair:
    """Return factors whose product is -<x, y>."""
    return -x, y


def _ones(x: Tensor) -> Tensor:
    return torch.ones_like(x[..., :1])


def _product(left: Tensor, right: Tensor) -> Tensor:
    return torch.matmul(left, right.mT)


def _product_above_zero(left: Tensor, right: Tensor) -> Tensor:
    product = _product(left, right)
    if not _live(left, right):
        return product.clamp_(min=0)
    # where rounding is below zero the derivatives are those of the square all the same
    return product + (-product.detach()).clamp_(min=0)


def _euclidean(left: Tensor, right: Tensor) -> Tensor:
    # a root would double the digits that a product loses between close points
    held = torch.cdist(left.detach(), right.detach(), compute_mode="donot_use_mm_for_euclid_dist")
    if not _live(left, right):
        return held
    # the derivatives of its square, of any order, without the rounding of that; where points
    # coincide a distance has a kink, whose middle is flat
    apart, square = held > 0, _product(*_of_squares(*_centred(left, right)))
    squared = torch.where(apart, held, 1.0).square()
    return torch.where(apart, (squared + square - square.detach()).sqrt(), 0.0)


def _manhattan(left: Tensor, right: Tensor) -> Tensor:
    if not _live(left, right):
        return torch.cdist(left, right, p=1.0)
    # of which there are derivatives of any order
    pairs = zip(left.unbind(-1), right.unbind(-1), strict=True)
    parts = [(x[..., :, None] - y[..., None, :]).abs() for x, y in pairs]
    return torch.stack(parts).sum(0)


def _chebyshev(left: Tensor, right: Tensor) -> Tensor:
    return _largest(left, right) if _live(left, right) else torch.cdist(left, right, p=math.inf)


def _largest(left: Tensor, right: Tensor) -> Tensor:
    # coordinates that tie share the derivative
    return (left[..., :, None, :] - right[..., None, :, :]).abs().amax(-1)


def _live(left: Tensor, right: Tensor) -> bool:
    return torch.is_grad_enabled() and (left.requires_grad or right.requires_grad)


def _pull_product(left: Tensor, right: Tensor, by: Tensor) -> Pair:
    return torch.matmul(by, right), torch.matmul(by.mT, left)


def _pull_euclidean(left: Tensor, right: Tensor, by: Tensor) -> Pair:
    distance = _euclidean(left, right)
    # what is summed is the difference of two points: less their centre it keeps its digits
    left, right = _centred(left, right)
    apart = distance > 0
    share = torch.where(apart, by / torch.where(apart, distance, 1.0), 0.0)
    one, other = _pull_product(left, right, share)
    rows, columns = share.sum(-1, keepdim=True), share.sum(-2)[..., None]
    return rows * left - one, columns * right - other


def _pull_manhattan(left: Tensor, right: Tensor, by: Tensor) -> Pair:
    rows, columns = [], []
    # one coordinate after another, so that nothing is larger than the costs
    for x, y in zip(left.unbind(-1), right.unbind(-1), strict=True):
        towards = torch.sign(x[..., :, None] - y[..., None, :]) * by
        rows.append(towards.sum(-1))
        columns.append(-towards.sum(-2))
    return torch.stack(rows, -1), torch.stack(columns, -1)


def _up_to_a_square(x: Tensor, y: Tensor) -> Bounds:
    reach = _reach(x, y)
    return Bounds(0.0, reach * reach)


def _up_to(x: Tensor, y: Tensor, *, order: float) -> Bounds:
    """Bound distances in the norm of an order, wherever the origin is."""
    return Bounds(0.0, _reach(*_centred(x, y), order))


def _reach(x: Tensor, y: Tensor, order: float = 2.0) -> float:
    longest, other = (t.norm(order, dim=-1).amax(-1) for t in (x, y))
    return float((longest + other).amax())


def _spanned(x: Tensor, y: Tensor) -> Bounds:
    span = float((x.norm(dim=-1).amax(-1) * y.norm(dim=-1).amax(-1)).amax())
    return Bounds(-span, span)


def _up_to_two(x: Tensor, y: Tensor) -> Bounds:
    return Bounds(0.0, 2.0)


METRICS: dict[MetricName, Metric] = {
    "sqeuclidean": Metric(
        place=_centred,
        factors=_of_squares,
        join=_product_above_zero,
        bounds=_up_to_a_square,
        pull=_pull_product,
    ),
    "euclidean": Metric(
        place=_as_they_are,
        factors=_as_they_are,
        join=_euclidean,
        bounds=partial(_up_to, order=2.0),
        pull=_pull_euclidean,
        distance=True,
    ),
    "manhattan": Metric(
        place=_as_they_are,
        factors=_as_they_are,
        join=_manhattan,
        bounds=partial(_up_to, order=1.0),
        pull=_pull_manhattan,
        distance=True,
    ),
    "chebyshev": Metric(
        place=_as_they_are,
        factors=_as_they_are,
        join=_chebyshev,
        bounds=partial(_up_to, order=math.inf),
        pull=functions.Blockwise(_largest).pull,
        distance=True,
    ),
    "dot": Metric(
        place=_as_they_are,
        factors=_of_minus,
        join=_product,
        bounds=_spanned,
        pull=_pull_product,
    ),
    "cosine": Metric(
        place=_normalised,
        factors=_of_one_minus,
        join=_product,
        bounds=_up_to_two,
        pull=_pull_product,
    ),
}


def metric_of(metric: MetricName | functions.Function, power: float) -> Metric:
    """Return a row of the table, a power of one, or the row that a function of points makes."""
    if not callable(metric):
        return METRICS[metric] if power == 1 else _Power(METRICS[metric], power).row
    made = functions.Blockwise(metric)
    return Metric(_as_they_are, _as_they_are, made.join, made.bounds, made.pull)


@shown
@dataclass(frozen=True)
class _Power:
    """A power of a distance."""

    metric: Metric
    power: float

    @property
    def row(self) -> Metric:
        return replace(self.metric, join=self.join, bounds=self.bounds, pull=self.pull)

    def join(self, left: Tensor, right: Tensor) -> Tensor:
        return _power(self.metric.join(left, right), self.power)

    def bounds(self, x: Tensor, y: Tensor) -> Bounds:
        # a tensor, whose powers may be too large
        high = torch.tensor(self.metric.bounds(x, y).high, dtype=torch.float64)
        return Bounds(0.0, float(high**self.power))

    def pull(self, left: Tensor, right: Tensor, by: Tensor) -> Pair:
        distance = self.metric.join(left, right)
        slope = torch.where(distance > 0, self.power * _power(distance, self.power - 1), 0.0)
        return self.metric.pull(left, right, by * slope)


def _power(distance: Tensor, power: float) -> Tensor:
    # at zero a power may have no derivative, and below zero no value
    apart = distance > 0
    return torch.where(apart, torch.where(apart, distance, 1.0) ** power, 0.0)
