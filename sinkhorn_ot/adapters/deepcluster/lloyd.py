"""k-means: DeepCluster's labels in turn with the means of what they label."""

import math
from typing import get_args

import torch
from torch import Tensor

from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.problem import ArrayLike, checks
from sinkhorn_ot.results import uncompiled
from sinkhorn_ot.sweeps import ProcessGroup, Ranks

from .labels import DeepClusterLabels, Empty, deepcluster_labels, finite, matrix
from .metrics import METRICS, MetricName


@uncompiled
@constant
def k_means(  # noqa: PLR0913
    features: ArrayLike,
    clusters: int,
    *,
    metric: MetricName = "sqeuclidean",
    init: DeepClusterLabels | ArrayLike | None = None,
    empty: Empty = "split",
    max_iter: int = 20,
    seed: int = 0,
    group: ProcessGroup | None = None,
) -> DeepClusterLabels:
    """Cluster features by Lloyd's algorithm: `deepcluster_labels` in turn with its centroids.

    Args:
        features: One row per sample, (N, d).
        clusters: How many clusters, K; no more than samples.
        metric: "sqeuclidean", or "cosine" for spherical k-means.
        init: Centroids to start from, (K, d), or an earlier answer. None chooses samples far from
            each other, at random (k-means++).
        empty: What a cluster without samples becomes, "split" or "keep".
        max_iter: Labellings at most; it ends earlier where no label changes. That is what k-means
            may take and no tolerance: nothing is said where labels would still change.
        seed: Fixes the samples chosen.
        group: Process group of torch.distributed over which the samples are spread: each rank
            passes its own, in any number, none included, and everything else alike.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: k-means++ as in D. Arthur, S. Vassilvitskii, SODA 2007.
    """
    ranks = Ranks(group)

    def look() -> Tensor:
        checks.count("clusters", clusters)
        checks.count("max_iter", max_iter)
        checks.one_of("metric", metric, tuple(METRICS))
        checks.one_of("empty", empty, get_args(Empty))
        return finite("features", matrix("features", features, ranks))

    def terms(x: Tensor) -> dict[str, object]:
        return {
            "clusters": clusters,
            "width": x.shape[1],
            "metric": metric,
            "empty": empty,
            "max_iter": max_iter,
            "seed": seed,
            "device": x.device.type,
            "whether init is given": init is not None,
        }

    x = ranks.agree(look, terms)
    N = ranks.total(len(x))
    if clusters > N:
        raise ValueError(f"clusters must be at most the {N} samples, got {clusters}")
    if isinstance(init, DeepClusterLabels):
        init = init.centroids(empty)
    elif init is not None:
        init = ranks.agree(lambda: finite("init", matrix("init", init)))
    start = _spread(x, N, clusters, metric, seed, ranks) if init is None else init
    found = deepcluster_labels(x, start, metric=metric, group=group)
    if len(found.counts) != clusters:
        raise ValueError(f"init must hold {clusters} centroids, got {len(found.counts)}")
    for _ in range(1, max_iter):
        before, centroids = found, found.centroids(empty)
        found = deepcluster_labels(x, centroids, metric=metric, group=group)
        if ranks.total(int((before.labels != found.labels).sum())) == 0:
            break
    return found


def _spread(
    x: Tensor, N: int, clusters: int, metric: MetricName, seed: int, ranks: Ranks
) -> Tensor:
    """Return samples as centroids, each chosen with probability as its squared distance, (K, d).

    All ranks draw the same numbers, and so choose the same samples of all N.
    """
    g = torch.Generator().manual_seed(checks.count("seed", seed, at_least=0))
    x = METRICS[metric].place(x.double())
    ones = torch.ones(len(x), dtype=torch.float64, device="cpu")
    first = float(torch.randint(N, (), generator=g, device="cpu"))
    # a place between two samples, so that rounding chooses none but this
    chosen = [_at(x, ones, first + 0.5, ranks)]
    far = (x - chosen[0]).square().sum(1)
    for _ in range(1, clusters):
        # where all are equal, any will do
        total = ranks.sum(far.sum())
        odds = far.cpu() if float(total) > 0 else ones
        mass = float(ranks.sum(odds.sum().to(x.device)))
        chosen.append(_at(x, odds, mass * float(torch.rand((), generator=g, device="cpu")), ranks))
        far = torch.minimum(far, (x - chosen[-1]).square().sum(1))
    return torch.stack(chosen)


def _at(x: Tensor, odds: Tensor, place: float, ranks: Ranks) -> Tensor:
    """Return the sample where the odds, summed over samples and ranks, reach a place."""
    mass = odds.cumsum(0)
    ends = ranks.shares(mass[-1:].sum().to(x.device)).cumsum(0).cpu()
    # rounding may put the place behind the last sample; a rank without odds owns none
    inside = min(place, math.nextafter(float(ends[-1]), 0.0))
    owner = int(torch.searchsorted(ends, inside, right=True))
    row = x.new_zeros(x.shape[1])
    if owner == ranks.rank:
        before = float(ends[owner - 1]) if owner else 0.0
        row = x[int(torch.searchsorted(mass, inside - before).clamp(max=len(x) - 1))].clone()
    return ranks.sum(row)
