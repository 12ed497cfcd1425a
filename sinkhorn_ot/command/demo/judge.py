"""How good what was learnt is: clusters beside the true digits, and digits never seen before."""

from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor, nn

from . import digits, figures


# neighbours that vote
_VOTERS = 5


@dataclass(frozen=True, eq=False)
class Found:
    """Clusters of the training digits, and how well they and their features do: 1 is perfect.

    Attributes:
        clusters: The cluster of each digit, (N,).
        nmi: Normalised mutual information of clusters and true digits.
        accuracy: Share of digits that are right when every cluster is named by its best digit.
        rand: Adjusted Rand index of clusters and true digits.
        neighbours: Share of the held-out digits that their nearest neighbours name rightly; None
            where clusters have no features.
    """

    clusters: Tensor
    nmi: float
    accuracy: float
    rand: float
    neighbours: float | None

    def __str__(self) -> str:
        """Return the four numbers in a line."""
        said = f"NMI {self.nmi:.3f}  ACC {self.accuracy:.3f}  ARI {self.rand:.3f}"
        return said if self.neighbours is None else f"{said}  k-NN {self.neighbours:.3f}"


def clusters(found: Tensor, data: digits.Digits, neighbours: float | None = None) -> Found:
    """Judge clusters, (N,)."""
    rand = float(adjusted_rand_score(data.labels.numpy(), found.numpy()))
    nmi, right = mutual_information(found, data.labels), accuracy(found, data.labels)
    return Found(found, nmi, right, rand, neighbours)


def features(backbone: nn.Module, data: digits.Digits) -> Found:
    """Judge a network by k-means of its features, and by their neighbours."""
    other = digits.held_out()
    seen, unseen = (digits.features(backbone, part.images) for part in (data, other))
    right = nearest_neighbours(seen, data.labels, unseen, other.labels)
    return clusters(digits.k_means(seen), data, right)


def pixels(data: digits.Digits) -> Found:
    """Judge the images as they are, in the same way."""
    other = digits.held_out()
    right = nearest_neighbours(data.pixels, data.labels, other.pixels, other.labels)
    return clusters(digits.k_means(data.pixels), data, right)


def show(data: digits.Digits, found: dict[str, Found], path: Path) -> None:
    """Print a line for each, and save a figure of their clusters."""
    width = max(map(len, found))
    for name, what in found.items():
        print(f"{name:<{width}}  {what}")
    titles = {f"{name}\nNMI {what.nmi:.3f}": what.clusters for name, what in found.items()}
    print(f"figure: {figures.save(figures.clusters(data.images, data.labels, titles), path)}")


def mutual_information(clusters: Tensor, labels: Tensor) -> float:
    """Return the normalised mutual information of clusters and labels: 1 if they agree."""
    return float(normalized_mutual_info_score(labels.numpy(), clusters.numpy()))


def accuracy(clusters: Tensor, labels: Tensor) -> float:
    """Return the share of labels met when every cluster is named by its best digit."""
    size = 1 + int(max(clusters.max(), labels.max()))
    table = torch.zeros(size, size, dtype=torch.int64)
    table.index_put_((clusters, labels), torch.ones_like(labels), accumulate=True)
    rows, columns = linear_sum_assignment(-table.numpy())
    return int(table[rows, columns].sum()) / len(labels)


def nearest_neighbours(x: Tensor, labels: Tensor, other: Tensor, truth: Tensor) -> float:
    """Return the share of `other` whose neighbours in x vote for the truth."""
    near = torch.cdist(other, x).topk(min(_VOTERS, len(x)), largest=False).indices
    return float((labels[near].mode(1).values == truth).double().mean())
