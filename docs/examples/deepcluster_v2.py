"""DeepCluster-v2 on digits: the centroids themselves are the classifier.

Spherical k-means of what the last epoch saw gives centroids and labels; the network learns to point
at its sample's centroid. No classifier has to be learnt again when the clusters change.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkhorn_ot.adapters import k_means
from sinkhorn_ot.command.demo import digits, judge
from sinkhorn_ot.command.demo.training import Cosines, batches, epochs_of


def train(images: Tensor, epochs: int, *, clusters: int = 30, seed: int = 0) -> nn.Module:
    """Return the trained backbone."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    network = Cosines(clusters)
    weights = [*network.backbone.parameters(), *network.head.parameters()]
    optimizer = torch.optim.Adam(weights, lr=2e-3, weight_decay=1e-6)
    with torch.no_grad():
        bank = network.embed(images)
    for epoch in epochs_of("DeepCluster-v2", epochs, optimizer, progress=True):
        found = k_means(bank, clusters, metric="cosine", empty="keep", seed=epoch)
        centroids = found.centroids().float()
        for index in batches(len(images), random):
            views = torch.cat([digits.view(images[index], random) for _ in range(2)])
            z = network.embed(views)
            loss = F.cross_entropy(z @ centroids.T / 0.1, found.labels[index].repeat(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            # the next clusters are those of what this epoch saw
            bank[index] = z.detach()[: len(index)]
    return network.backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--clusters", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("deepcluster_v2.png"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    data = digits.load(options.images)
    backbone = train(data.images, options.epochs, clusters=options.clusters, seed=options.seed)
    found = {
        "raw pixels": judge.pixels(data),
        "DeepCluster-v2 features": judge.features(backbone, data),
    }
    judge.show(data, found, options.out)


if __name__ == "__main__":
    main()
