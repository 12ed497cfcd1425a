"""DeepCluster's labels: transport of features to centroids whose shares are free.

With nothing asked of the clusters, each sample takes its nearest centroid: no potentials and no
iterations, one pass over blocks of rows. A lower bound on the clusters' sizes gives back
potentials, none of them negative.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import alike, samples
from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.problem import ArrayLike, checks, needs, shown
from sinkhorn_ot.results import Result, uncompiled
from sinkhorn_ot.sweeps import ALONE, ProcessGroup, Ranks

from .metrics import METRICS, MetricName


Empty = Literal["split", "keep"]
# entries looked at together
_TILE = 1 << 18
# how far apart the halves of a split cluster start, relative to its centroid
_SPLIT = 1e-7
# reg of bounded sizes, relative to what a centroid that is not the nearest one typically loses
_SHARP = 0.01
# error of bounded sizes, in samples, and sweeps at most
_TOL = 0.01
_SWEEPS = 1000


@shown
@dataclass(frozen=True, eq=False)
class DeepClusterLabels(Result):
    """Labels, and what the next centroids and the next batches need.

    Attributes:
        labels: The nearest centroid of each sample, (N,), int64. Under ranks, of this rank's
            samples; everything else is of all.
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
    metric: MetricName

    _tells = ("labels", "counts", "sums", "cost", "origin", "metric")
    _precise = "what is labelled hangs on the last digit of its numbers"

    def centroids(self, empty: Empty = "keep") -> Tensor:
        """Return the means of the clusters, (K, d), float64; unit vectors for "cosine".

        Args:
            empty: What a cluster without samples becomes: "split" half of the largest cluster,
                whose halves start 1e-7 apart, as in DeepCluster, or "keep" what it was, as in
                DeepCluster-v2.
        """
        checks.one_of("empty", empty, get_args(Empty))
        means = self.sums / self.counts.clamp(min=1)[:, None]
        means = torch.where(self.counts[:, None] > 0, means, self.origin)
        if empty == "split":
            _split(means, self.counts.clone())
        return METRICS[self.metric].place(means)

    def sample_weights(self) -> Tensor:
        """Return one weight per sample, (N,), by which all clusters weigh the same.

        Their sum is one, under ranks that of all ranks.
        """
        used = int((self.counts > 0).sum())
        return 1.0 / (self.counts.double()[self.labels] * used)

    def matched(self, previous: Tensor, group: ProcessGroup | None = None) -> "DeepClusterLabels":
        """Return the same clusters, renamed so that most samples keep the label they had.

        Args:
            previous: Earlier labels of the same samples, (N,), in 0..K - 1.
            group: The process group that the clusters were found with.
        """
        with needs("scipy"):
            from scipy.optimize import linear_sum_assignment

        K, ranks = len(self.counts), Ranks(group)
        ranks.agree(lambda: self._fits(previous))
        pairs = previous.to(self.labels.device) * K + self.labels
        overlap = ranks.sum(torch.bincount(pairs, minlength=K * K)).view(K, K).cpu()
        # old name k goes to the new cluster order[k]
        order = torch.from_numpy(linear_sum_assignment(-overlap.numpy())[1])
        order = order.to(self.labels.device)
        return DeepClusterLabels(
            labels=order.argsort()[self.labels],
            counts=self.counts[order],
            sums=self.sums[order],
            cost=self.cost,
            origin=self.origin[order],
            metric=self.metric,
        )

    def _fits(self, previous: Tensor) -> None:
        """Require labels of these samples."""
        K = len(self.counts)
        if previous.shape != self.labels.shape or previous.dtype != torch.int64:
            raise ValueError(
                f"previous must hold int64 labels of shape {tuple(self.labels.shape)}, "
                f"got {previous.dtype} of {tuple(previous.shape)}"
            )
        bad = (previous < 0) | (previous >= K)
        if bool(bad.any()):
            checks.refuse("previous", f"hold labels in 0..{K - 1}", previous, bad)


@uncompiled
@constant
def deepcluster_labels(
    features: ArrayLike,
    centroids: ArrayLike,
    *,
    metric: MetricName = "sqeuclidean",
    min_size: int = 0,
    reg: float | None = None,
    group: ProcessGroup | None = None,
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
        group: Process group of torch.distributed over which the samples are spread: each rank
            passes its own, in any number, none included, and the same centroids.

    Returns:
        Labels, counts, sums, from which the next centroids come.

    Raises:
        ValueError: If an argument breaks a rule; for a value, with the first bad index.

    Source: M. Caron et al., Deep clustering for unsupervised learning of visual features, ECCV
    2018; DeepCluster-v2 as in M. Caron et al., NeurIPS 2020, appendix.
    """
    ranks = Ranks(group)

    def look() -> _Asked:
        return _asked(features, centroids, metric, min_size, reg, ranks)

    asked = ranks.agree(look, _Asked.terms)
    scored, min_size = asked.scored, asked.min_size
    N, K = ranks.total(len(scored.x)), len(scored.c)
    if N == 0:
        raise ValueError("features must not be empty, got no sample on any rank of the group")
    if min_size * K > N:
        raise ValueError(
            f"min_size must leave enough samples: {K} clusters of at least {min_size} need "
            f"{min_size * K}, got {N}"
        )
    offset = torch.zeros_like(scored.c[:, 0])
    if min_size:
        reg = scored.scale() * _SHARP if asked.reg is None else asked.reg
        offset = scored.bounded(min_size, reg)
    return scored.read_out(offset, N)


@shown
@dataclass(frozen=True, eq=False)
class _Asked:
    """What a call asks for, checked."""

    scored: "_Scored"
    min_size: int
    reg: float | None

    def terms(self) -> dict[str, object]:
        """Return what ranks must agree on."""
        p = self.scored
        return {
            "K": len(p.c),
            "width": p.c.shape[1],
            "metric": p.metric,
            **alike(self, "scored"),
            "device": p.c.device.type,
            # a centroid that differs shows here
            "sum of the centroids": float(p.c.sum()),
        }


def _asked(
    features: ArrayLike,
    centroids: ArrayLike,
    metric: MetricName,
    min_size: Any,
    reg: Any,
    ranks: Ranks,
) -> _Asked:
    x = finite("features", matrix("features", features, ranks))
    c = matrix("centroids", centroids)
    c = finite("centroids", checks.same_device("centroids", c, x.device, "features"))
    if x.shape[1] != c.shape[1]:
        raise ValueError(
            f"features and centroids must have one width, got {x.shape[1]} and {c.shape[1]}"
        )
    checks.one_of("metric", metric, tuple(METRICS))
    min_size = checks.count("min_size", min_size, at_least=0)
    reg = None if reg is None else checks.positive("reg", reg)
    return _Asked(_Scored(x, c.double(), metric, ranks), min_size, reg)


@shown
@dataclass(frozen=True, eq=False)
class _Scored:
    """Features, centroids in float64, and the score of the two, larger where they are closer."""

    x: Tensor
    c: Tensor
    metric: MetricName
    ranks: Ranks

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows, their features in float64, and their scores (rows, K)."""
        metric = METRICS[self.metric]
        c = metric.place(self.c)
        own = metric.own * c.square().sum(1)
        step = max(1, _TILE // max(self.c.shape))
        for start in range(0, len(self.x), step):
            rows = slice(start, start + step)
            x = metric.place(self.x[rows].double())
            yield rows, x, x @ c.T - own

    def scale(self) -> float:
        """Return what another centroid than the nearest typically loses, on the first rows."""
        found = self.c.new_zeros(2)
        for _, _, S in self.blocks():
            found += torch.stack([(S.amax(1, keepdim=True) - S).median(), torch.ones_like(S[0, 0])])
            break
        # the mean over the ranks that have rows
        loss, some = self.ranks.sum(found).tolist()
        return loss / some if loss > 0 else 1.0

    def bounded(self, min_size: int, reg: float) -> Tensor:
        """Return offsets f of the scores, (K,), with which no cluster has less than its bound.

        f_k = max(0, log lo_k - LSE_i(S_ik + g_i)) in turn with g_i = -LSE_k(S_ik + f_k).
        """
        f = torch.zeros_like(self.c[:, 0])
        # no marginal of the solver is a bound: its steps and its error know equal, relaxed and free
        for _ in range(_SWEEPS):
            mass = torch.zeros_like(f)
            for _, _, S in self.blocks():
                mass += torch.softmax(S / reg + f, 1).sum(0)
            mass = self.ranks.sum(mass)
            short = (min_size - mass).clamp(min=0)
            spare = torch.where(f > 0, (mass - min_size).clamp(min=0), 0.0)
            if float((short + spare).sum()) <= _TOL * len(f):
                break
            f = (f + math.log(min_size) - mass.clamp(min=1e-300).log()).clamp(min=0)
        return f * reg

    def read_out(self, offset: Tensor, N: int) -> DeepClusterLabels:
        """Return the labels, and sum what has each, over the N samples of all ranks."""
        K, d = self.c.shape
        labels = torch.empty(len(self.x), dtype=torch.int64, device=self.x.device)
        sums, cost = torch.zeros_like(self.c), self.c.new_zeros(())
        for rows, x, S in self.blocks():
            best = (S + offset).argmax(1)
            labels[rows] = best
            sums.index_add_(0, best, x)
            cost -= S.gather(1, best[:, None]).sum()
            cost += METRICS[self.metric].own * x.square().sum()
        counts = self.ranks.sum(torch.bincount(labels, minlength=K))
        sums, cost = self.ranks.sum(sums), self.ranks.sum(cost)
        return DeepClusterLabels(labels, counts, sums, cost / N, self.c, self.metric)


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


def matrix(name: str, x: Any, ranks: Ranks = ALONE) -> Tensor:
    """Require a matrix of rows; there may be none on a rank of a group."""
    meaning = "(N, d)" if name == "features" else "(K, d)"
    t = samples(name, x, meaning, ranks)
    if t.ndim != 2:
        raise ValueError(f"{name} must have shape {meaning}, got {tuple(t.shape)}")
    return t


def finite(name: str, t: Tensor) -> Tensor:
    """Require finite numbers, if there are any."""
    return checks.finite(name, checks.present(name, t)) if t.numel() else t
