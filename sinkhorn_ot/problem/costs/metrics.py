"""Metrics: what one point and another cost, a row of a table each."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .cost import Bounds


Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Metric:
    """How costs are made of two clouds in float64, (..., n, d) and (..., m, d).

    Attributes:
        place: Moves the clouds to where rounding is least and the cost the same.
        factors: Makes of placed clouds, once, two tensors with a row per point, (..., n, k) and
            (..., m, k).
        join: Makes the costs, (..., rows, m), of some rows of the first factor and the second.
        bounds: Bounds the costs of points whose norms have this largest sum and product.
        pull: Makes of both factors and derivatives by the costs those by the factors.
    """

    place: Callable[[Tensor, Tensor], Pair]
    factors: Callable[[Tensor, Tensor], Pair]
    join: Callable[[Tensor, Tensor], Tensor]
    bounds: Callable[[float, float], Bounds]
    pull: Callable[[Tensor, Tensor, Tensor], Pair]

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
    return _product(left, right).clamp_(min=0)


def _distance(left: Tensor, right: Tensor) -> Tensor:
    # a root would double the digits that a product loses between close points
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")


def _pull_product(left: Tensor, right: Tensor, by: Tensor) -> Pair:
    return torch.matmul(by, right), torch.matmul(by.mT, left)


def _pull_distance(left: Tensor, right: Tensor, by: Tensor) -> Pair:
    held = _distance(left.detach(), right.detach())
    # where points coincide a distance has a kink, whose middle is flat
    apart = held > 0
    distance = torch.where(apart, held, 1.0)
    if torch.is_grad_enabled() and (left.requires_grad or right.requires_grad):
        # the derivatives of its square, of any order, without the rounding of that
        square = _product(*_of_squares(left, right))
        distance = (distance.square() + torch.where(apart, square - square.detach(), 0.0)).sqrt()
    share = torch.where(apart, by / distance, 0.0)
    one, other = _pull_product(left, right, share)
    rows, columns = share.sum(-1, keepdim=True), share.sum(-2)[..., None]
    return rows * left - one, columns * right - other


METRICS = {
    "sqeuclidean": Metric(
        place=_centred,
        factors=_of_squares,
        join=_product_above_zero,
        bounds=lambda reach, span: Bounds(0.0, reach * reach),
        pull=_pull_product,
    ),
    "euclidean": Metric(
        place=_centred,
        factors=_as_they_are,
        join=_distance,
        bounds=lambda reach, span: Bounds(0.0, reach),
        pull=_pull_distance,
    ),
    "dot": Metric(
        place=_as_they_are,
        factors=_of_minus,
        join=_product,
        bounds=lambda reach, span: Bounds(-span, span),
        pull=_pull_product,
    ),
    "cosine": Metric(
        place=_normalised,
        factors=_of_one_minus,
        join=_product,
        bounds=lambda reach, span: Bounds(0.0, 2.0),
        pull=_pull_product,
    ),
}
