"""DeeperCluster's labels: clusters times rotations, and clusters again inside each.

The super-class of a rotated image is 4 * cluster + rotation, where the cluster is that of the image
as it is. Inside a super-class the images are told apart by the sub-clusters of their cluster.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import at_least_single
from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.problem import ArrayLike, checks, shown
from sinkhorn_ot.results import Result, uncompiled
from sinkhorn_ot.sweeps import ProcessGroup, Ranks

from .labels import DeepClusterLabels, finite, matrix
from .lloyd import k_means
from .metrics import MetricName


# quarter turns
ROTATIONS = 4


@shown
@dataclass(frozen=True, eq=False)
class DeeperClusterLabels(Result):
    """Labels of two levels.

    Attributes:
        clusters: First level: the clusters of the images as they are, m of them.
        sub: Second level: the label of each image inside its cluster, (N,), int64. Under ranks,
            of this rank's images; counts are of all.
        sub_counts: Images of each sub-cluster, (m, k), int64. A cluster of fewer than k images has
            one for each.
    """

    clusters: DeepClusterLabels
    sub: Tensor
    sub_counts: Tensor

    _tells = ("sub", "sub_counts")
    _precise = "what is labelled hangs on the last digit of its numbers"

    def super_classes(self, rotation: Tensor) -> Tensor:
        """Return the super-class of each image turned `rotation` quarters, 4 * cluster + rotation.

        Args:
            rotation: Quarter turns of each image, (N,) or any shape that broadcasts with it, in
                0..3. (4, 1) gives all four of each.
        """
        return ROTATIONS * self.clusters.labels + _quarters(rotation)


@uncompiled
@constant
def deepercluster_labels(
    features: ArrayLike,
    clusters: int,
    sub_clusters: int,
    *,
    metric: MetricName = "sqeuclidean",
    max_iter: int = 20,
    seed: int = 0,
    group: ProcessGroup | None = None,
) -> DeeperClusterLabels:
    """Cluster features, then the features of every cluster, cluster by cluster.

    Args:
        features: Features of the unrotated images, (N, d).
        clusters: Clusters of the first level, m; there are 4 m super-classes.
        sub_clusters: Clusters inside each, k.
        metric: "sqeuclidean" or "cosine".
        max_iter: Labellings of one k-means at most, as in `k_means`.
        seed: Fixes where k-means starts.
        group: Process group of torch.distributed over which the samples are spread: each rank
            passes its own, in any number, none included, and everything else alike.

    Raises:
        ValueError: If an argument breaks a rule; for a value, with the first bad index.

    Source: M. Caron et al., Unsupervised pre-training of image features on non-curated data, ICCV
    2019.
    """
    ranks = Ranks(group)
    x, sub_clusters = ranks.agree(
        lambda: (
            finite("features", matrix("features", features, ranks)),
            checks.count("sub_clusters", sub_clusters),
        ),
        lambda it: {"sub_clusters": it[1]},
    )
    found = k_means(x, clusters, metric=metric, max_iter=max_iter, seed=seed, group=group)
    sub = torch.empty_like(found.labels)
    counts = sub.new_zeros(len(found.counts), sub_clusters)
    for k, size in enumerate(found.counts.tolist()):
        if size == 0:
            continue
        members, few = (found.labels == k).nonzero()[:, 0], min(sub_clusters, size)
        inside = k_means(x[members], few, metric=metric, max_iter=max_iter, seed=seed, group=group)
        sub[members] = inside.labels
        counts[k, :few] = inside.counts
    return DeeperClusterLabels(found, sub, counts)


def deepercluster_loss(
    super_logits: Tensor, sub_logits: Tensor, super_classes: Tensor, sub: Tensor
) -> Tensor:
    """Return the loss of two levels: of the super-class, and of the sub-class inside the right one.

    Args:
        super_logits: Logits of the super-classes, (N, S).
        sub_logits: Logits of the sub-classes inside each super-class, (N, S, k).
        super_classes: The right super-classes, (N,), int64 in 0..S - 1.
        sub: The right sub-classes inside them, (N,), int64 in 0..k - 1.

    Returns:
        Mean cross-entropy of both, added, a scalar in float32, or float64 for float64 logits.

    Raises:
        ValueError: If shapes do not fit; on the CPU, for a label out of range, or a logit that
            is NaN or inf, with its index.
    """
    if super_logits.ndim != 2 or 0 in super_logits.shape:
        raise ValueError(
            f"super_logits must have shape (N, S), not empty, got {tuple(super_logits.shape)}"
        )
    N, S = super_logits.shape
    if sub_logits.ndim != 3 or sub_logits.shape[:2] != (N, S) or 0 in sub_logits.shape:
        raise ValueError(
            f"sub_logits must have shape ({N}, {S}, k) to fit super_logits, "
            f"got {tuple(sub_logits.shape)}"
        )
    _labels("super_classes", super_classes, N, S)
    _labels("sub", sub, N, sub_logits.shape[2])
    inside = sub_logits[torch.arange(N, device=sub_logits.device), super_classes]
    _below_inf("super_logits", super_logits)
    _below_inf("sub_logits", sub_logits)
    with torch.autocast(super_logits.device.type, enabled=False):
        return _cross_entropy(super_logits, super_classes) + _cross_entropy(inside, sub)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy; unlike PyTorch's, no label means that a sample is left out."""
    log_p = torch.log_softmax(logits.to(at_least_single(logits.dtype)), 1)
    return -log_p.gather(1, labels[:, None]).mean()


def _below_inf(name: str, logits: Tensor) -> None:
    """Refuse NaN and inf where a look is free; -inf closes a class."""
    x = logits.detach()
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and not (x < math.inf).all():
        checks.refuse(name, "be a number below inf", x, ~(x < math.inf))


def _labels(name: str, labels: Tensor, N: int, many: int) -> None:
    """Require labels of N samples; their values are looked at where that is free."""
    if labels.dtype != torch.int64 or labels.shape != (N,):
        raise ValueError(
            f"{name} must hold int64 labels of shape ({N},), "
            f"got {labels.dtype} of {tuple(labels.shape)}"
        )
    # elsewhere, a label out of range stops the device
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        bad = (labels < 0) | (labels >= many)
        if bool(bad.any()):
            checks.refuse(name, f"hold labels in 0..{many - 1}", labels, bad)


def rotate(images: Tensor, rotation: Tensor) -> Tensor:
    """Return images (N, C, H, H), each turned by its number of quarters, (N,)."""
    if images.ndim != 4 or images.shape[-1] != images.shape[-2]:
        raise ValueError(f"images must have shape (N, C, H, H), got {tuple(images.shape)}")
    if rotation.shape != images.shape[:1]:
        raise ValueError(f"rotation must have shape ({len(images)},), got {tuple(rotation.shape)}")
    out = torch.empty_like(images)
    for quarters in range(ROTATIONS):
        turned = _quarters(rotation) == quarters
        out[turned] = torch.rot90(images[turned], quarters, (-2, -1))
    return out


def _quarters(rotation: Tensor) -> Tensor:
    """Require whole quarter turns in 0..3."""
    if rotation.dtype != torch.int64:
        raise ValueError(f"rotation must be int64, got {rotation.dtype}")
    bad = (rotation < 0) | (rotation >= ROTATIONS)
    if bool(bad.any()):
        checks.refuse("rotation", "be 0, 1, 2 or 3 quarter turns", rotation, bad)
    return rotation
