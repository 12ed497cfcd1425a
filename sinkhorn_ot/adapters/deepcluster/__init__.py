"""DeepCluster, its second version, DeeperCluster, and the k-means under all three."""

from .deeper import DeeperClusterLabels, deepercluster_labels, deepercluster_loss, rotate
from .labels import DeepClusterLabels, deepcluster_labels
from .lloyd import k_means


__all__ = [
    "DeepClusterLabels",
    "DeeperClusterLabels",
    "deepcluster_labels",
    "deepercluster_labels",
    "deepercluster_loss",
    "k_means",
    "rotate",
]
