"""DeepCluster's labels: transport of features to centroids whose shares are free.

With nothing asked of the clusters, each sample takes its nearest centroid: no potentials and no
iterations, one pass over blocks of rows. k-means is this solve in turn with the means of what it
found. A lower bound on the clusters' sizes gives back potentials, none of them negative.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot import _check


METRICS = ("sqeuclidean", "cosine")
EMPTY = ("split", "keep")
# entries looked at together
_TILE = 1 << 18
# how far apart the halves of a split cluster start, relative to its centroid
_SPLIT = 1e-7
# reg of bounded sizes, relative to what a centroid that is not the nearest one typically loses
_SHARP = 0.01
# error of bounded sizes, in samples, and sweeps at most
_TOL = 0.01
_SWEEPS = 1000


@dataclass(frozen=True, eq=False)
class DeepClusterLabels:
    """Labels, and what the next centroids and the next batches need.

    Attributes:
        labels: The nearest centroid of each sample, (N,), int64.
        counts: Samples of each cluster, (K,), int64.
        sums: Sum of the features of each cluster, (K, d), float64; of unit features if the metric
            is "cosine".
        cost: Mean cost of a sample and its centroid, float64: half the squared distance, or minus
            the cosine.
        origin: The centroids that gave the labels, (K, d), float64.
        metric: "sqeuclidean" or "cosine".
    """

    labels: Tensor
    counts: Tensor
    sums: Tensor
    cost: Tensor
    origin: Tensor
    metric: str

    def centroids(self, empty: str = "keep") -> Tensor:
        """Return the means of the clusters, (K, d), float64; unit vectors for "cosine".

        Args:
            empty: What a cluster without samples becomes: "split" half of the largest cluster,
                whose halves start 1e-7 apart, as in DeepCluster, or "keep" what it was, as in
                DeepCluster-v2.
        """
        _check.one_of("empty", empty, EMPTY)
        means = self.sums / self.counts.clamp(min=1)[:, None]
        means = torch.where(self.counts[:, None] > 0, means, self.origin)
        if empty == "split":
            _split(means, self.counts.clone())
        return torch.nn.functional.normalize(means, dim=1) if self.metric == "cosine" else means

    def sample_weights(self) -> Tensor:
        """Return one weight per sample, (N,), of sum one, by which all clusters weigh the same."""
        used = int((self.counts > 0).sum())
        return 1.0 / (self.counts.double()[self.labels] * used)

    def matched(self, previous: Tensor) -> "DeepClusterLabels":
        """Return the same clusters, renamed so that most samples keep the label they had.

        Args:
            previous: Earlier labels of the same samples, (N,), in 0..K - 1.
        """
        from scipy.optimize import linear_sum_assignment

        K = len(self.counts)
        if previous.shape != self.labels.shape or previous.dtype != torch.int64:
            raise ValueError(
                f"previous must hold int64 labels of shape {tuple(self.labels.shape)}, "
                f"got {previous.dtype} of {tuple(previous.shape)}"
            )
        bad = (previous < 0) | (previous >= K)
        if bool(bad.any()):
            _check.refuse("previous", f"hold labels in 0..{K - 1}", previous, bad)
        pairs = previous.to(self.labels.device) * K + self.labels
        overlap = torch.bincount(pairs, minlength=K * K).view(K, K).cpu()
        # old name k goes to the new cluster order[k]
        order = torch.from_numpy(linear_sum_assignment(-overlap.numpy())[1])
        order = order.to(self.labels.device)
        kept = {name: getattr(self, name)[order] for name in ("counts", "sums", "origin")}
        return replace(self, labels=order.argsort()[self.labels], **kept)


@torch.no_grad()
def deepcluster_labels(
    features: Any,
    centroids: Any,
    *,
    metric: str = "sqeuclidean",
    min_size: int = 0,
    reg: float | None = None,
) -> DeepClusterLabels:
    """Label each sample by its nearest centroid, in one pass over blocks of rows.

    Args:
        features: One row per sample, (N, d).
        centroids: One row per cluster, (K, d), of any floating-point dtype.
        metric: "sqeuclidean" as in DeepCluster, or "cosine" as in DeepCluster-v2.
        min_size: Samples that every cluster gets at least, in mass. The labels are the largest
            entries of a plan, so that they keep the bound nearly; `counts` says how nearly.
        reg: Entropic regularisation of that plan, in units of half a squared distance or of a
            cosine. None means a hundredth of what a farther centroid typically costs.

    Returns:
        A `DeepClusterLabels`: labels, counts, sums, from which the next centroids come.

    Raises:
        ValueError: If an argument breaks a rule; for a value, with the first bad index.

    Source: M. Caron et al., Deep clustering for unsupervised learning of visual features, ECCV
    2018; DeepCluster-v2 as in M. Caron et al., NeurIPS 2020, appendix.
    """
    x = _matrix("features", features, "(N, d)")
    c = _check.same_device(
        "centroids", _matrix("centroids", centroids, "(K, d)"), x.device, "features"
    )
    if x.shape[1] != c.shape[1]:
        raise ValueError(
            f"features and centroids must have one width, got {x.shape[1]} and {c.shape[1]}"
        )
    _check.one_of("metric", metric, METRICS)
    min_size = _check.count("min_size", min_size, at_least=0)
    if min_size * len(c) > len(x):
        raise ValueError(
            f"min_size must leave enough samples: {len(c)} clusters of at least {min_size} need "
            f"{min_size * len(c)}, got {len(x)}"
        )
    problem = _Problem(x, c.double(), metric)
    offset = torch.zeros(len(c), dtype=torch.float64, device=c.device)
    if min_size:
        reg = problem.scale() * _SHARP if reg is None else _check.positive("reg", reg)
        offset = problem.bounded(min_size, reg)
    return problem.read_out(offset)


@torch.no_grad()
def k_means(
    features: Any,
    clusters: int,
    *,
    metric: str = "sqeuclidean",
    init: Any = None,
    empty: str = "split",
    max_iter: int = 20,
    seed: int = 0,
) -> DeepClusterLabels:
    """Cluster features by Lloyd's algorithm: `deepcluster_labels` in turn with its centroids.

    Args:
        features: One row per sample, (N, d).
        clusters: How many clusters, K; no more than samples.
        metric: "sqeuclidean", or "cosine" for spherical k-means.
        init: Centroids to start from, (K, d), or an earlier answer. None chooses samples far from
            each other, at random (k-means++).
        empty: What a cluster without samples becomes, "split" or "keep".
        max_iter: Labellings at most; it ends earlier where no label changes.
        seed: Fixes the samples chosen.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: k-means++ as in D. Arthur, S. Vassilvitskii, SODA 2007.
    """
    x = _matrix("features", features, "(N, d)")
    clusters = _check.count("clusters", clusters)
    max_iter = _check.count("max_iter", max_iter)
    _check.one_of("metric", metric, METRICS)
    _check.one_of("empty", empty, EMPTY)
    if clusters > len(x):
        raise ValueError(f"clusters must be at most the {len(x)} samples, got {clusters}")
    if isinstance(init, DeepClusterLabels):
        init = init.centroids(empty)
    start = _spread(x, clusters, metric, seed) if init is None else init
    found = deepcluster_labels(x, start, metric=metric)
    if len(found.counts) != clusters:
        raise ValueError(f"init must hold {clusters} centroids, got {len(found.counts)}")
    for _ in range(1, max_iter):
        before, found = found, deepcluster_labels(x, found.centroids(empty), metric=metric)
        if torch.equal(before.labels, found.labels):
            break
    return found


@dataclass(frozen=True, eq=False)
class _Problem:
    """Features, centroids in float64, and the score of the two, larger where they are closer."""

    x: Tensor
    c: Tensor
    metric: str

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows, their features in float64, and their scores (rows, K)."""
        c, half = self.c, self.c.square().sum(1) / 2
        if self.metric == "cosine":
            c, half = torch.nn.functional.normalize(c, dim=1), torch.zeros_like(half)
        step = max(1, _TILE // max(self.c.shape))
        for start in range(0, len(self.x), step):
            rows = slice(start, start + step)
            x = self.x[rows].double()
            if self.metric == "cosine":
                x = torch.nn.functional.normalize(x, dim=1)
            yield rows, x, x @ c.T - half

    def scale(self) -> float:
        """Return what another centroid than the nearest typically loses, on the first rows."""
        _, _, S = next(self.blocks())
        loss = float((S.amax(1, keepdim=True) - S).median())
        return loss if loss > 0 else 1.0

    def bounded(self, min_size: int, reg: float) -> Tensor:
        """Return offsets f of the scores, (K,), with which no cluster has less than its bound.

        f_k = max(0, log lo_k - LSE_i(S_ik + g_i)) in turn with g_i = -LSE_k(S_ik + f_k).
        """
        f = torch.zeros_like(self.c[:, 0])
        for _ in range(_SWEEPS):
            mass = torch.zeros_like(f)
            for _, _, S in self.blocks():
                mass += torch.softmax(S / reg + f, 1).sum(0)
            short = (min_size - mass).clamp(min=0)
            spare = torch.where(f > 0, (mass - min_size).clamp(min=0), 0.0)
            if float((short + spare).sum()) <= _TOL * len(f):
                break
            f = (f + math.log(min_size) - mass.clamp(min=1e-300).log()).clamp(min=0)
        return f * reg

    def read_out(self, offset: Tensor) -> DeepClusterLabels:
        """Return the labels, and sum what has each."""
        K, d = self.c.shape
        labels = torch.empty(len(self.x), dtype=torch.int64, device=self.x.device)
        sums, cost = torch.zeros_like(self.c), self.c.new_zeros(())
        for rows, x, S in self.blocks():
            best = (S + offset).argmax(1)
            labels[rows] = best
            sums.index_add_(0, best, x)
            cost -= S.gather(1, best[:, None]).sum()
            if self.metric == "sqeuclidean":
                cost += x.square().sum() / 2
        counts = torch.bincount(labels, minlength=K)
        return DeepClusterLabels(labels, counts, sums, cost / len(self.x), self.c, self.metric)


def _split(means: Tensor, counts: Tensor) -> None:
    """Move each centroid of an empty cluster beside that of the largest one, in place."""
    sign = 1.0 - 2.0 * (torch.arange(means.shape[1], device=means.device) % 2)
    splits = torch.zeros_like(counts)
    for k in (counts == 0).nonzero()[:, 0].tolist():
        largest = int(counts.argmax())
        # halves of halves are nearer to each other, and so no two centroids meet
        apart = _SPLIT * 0.5 ** float(splits[largest])
        apart = apart * sign * means[largest].abs().amax().clamp(min=1e-30)
        splits[largest] += 1
        splits[k] = splits[largest]
        means[k] = means[largest] + apart
        means[largest] -= apart
        counts[k] = counts[largest] // 2
        counts[largest] -= counts[k]


def _spread(x: Tensor, clusters: int, metric: str, seed: int) -> Tensor:
    """Return samples as centroids, each chosen with probability as its squared distance, (K, d)."""
    g = torch.Generator().manual_seed(seed)
    x = x.double()
    x = torch.nn.functional.normalize(x, dim=1) if metric == "cosine" else x
    chosen = [int(torch.randint(len(x), (), generator=g))]
    far = (x - x[chosen[0]]).square().sum(1)
    for _ in range(1, clusters):
        # where all are equal, any will do
        odds = far.cpu() if float(far.sum()) > 0 else torch.ones(len(x))
        chosen.append(
            int(
                torch.searchsorted(odds.cumsum(0), odds.sum() * torch.rand((), generator=g)).clamp(
                    max=len(x) - 1
                )
            )
        )
        far = torch.minimum(far, (x - x[chosen[-1]]).square().sum(1))
    return x[chosen]


def _matrix(name: str, x: Any, meaning: str) -> Tensor:
    t = _check.at_least_dims(name, _check.tensor(name, x), 2, meaning)
    if t.ndim != 2:
        raise ValueError(f"{name} must have shape {meaning}, got {tuple(t.shape)}")
    return _check.finite(name, t)
