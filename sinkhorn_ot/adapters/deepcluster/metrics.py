"""Metrics of DeepCluster: how features and centroids meet, a row of a table each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """What a feature x costs at a centroid c: own (|x|^2 + |c|^2) - <x, c>, where both are placed.

    Attributes:
        place: Moves features or centroids, (rows, d), to where they are compared.
        own: Share of the squared lengths.
    """

    place: Callable[[Tensor], Tensor]
    own: float


def _as_they_are(x: Tensor) -> Tensor:
    return x


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=1)


# half the squared distance, and minus the cosine
MetricName = Literal["sqeuclidean", "cosine"]
METRICS: dict[MetricName, Metric] = {
    "sqeuclidean": Metric(_as_they_are, 0.5),
    "cosine": Metric(_unit, 0.0),
}
