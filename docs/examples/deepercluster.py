"""DeeperCluster on digits: clusters times rotations, and sub-clusters inside each.

Every image is shown turned by a random number of quarters. The network says which cluster it is of
and how it is turned, and inside that super-class which sub-cluster it is of.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from sinkhorn_ot.adapters import deepercluster_labels, deepercluster_loss, rotate
from sinkhorn_ot.demo import digits, figures
from sinkhorn_ot.demo.training import epochs_of


def train(images: Tensor, options: argparse.Namespace) -> nn.Module:
    """Return the trained backbone."""
    torch.manual_seed(options.seed)
    random = torch.Generator().manual_seed(options.seed)
    backbone = digits.Backbone()
    m, k = options.clusters, options.inside
    first, second = nn.Linear(backbone.width, 4 * m), nn.Linear(backbone.width, 4 * m * k)
    weights = [*backbone.parameters(), *first.parameters(), *second.parameters()]
    optimizer = torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-5)
    found = None
    for epoch in epochs_of("DeeperCluster", options.epochs, optimizer, progress=True):
        # labels are kept for some epochs, as in the paper: two levels take long to learn
        if epoch % options.every == 0:
            seen = digits.features(backbone, images)
            found = deepercluster_labels(seen, m, k, seed=epoch)
            first.reset_parameters()
            second.reset_parameters()
        assert found is not None
        for index in torch.randperm(len(images), generator=random).split(options.batch):
            turn = torch.randint(4, (len(images),), generator=random)
            h = backbone(rotate(digits.view(images[index], random), turn[index]))
            logits = first(h), second(h).view(-1, 4 * m, k)
            right = found.super_classes(turn)[index], found.sub[index]
            loss = deepercluster_loss(*logits, *right)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--inside", type=int, default=3, help="sub-clusters of each cluster")
    parser.add_argument("--every", type=int, default=10, help="epochs between two clusterings")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("deepercluster.png"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    data = digits.load(options.images)
    backbone = train(data.images, options)
    found = {
        "raw pixels": digits.k_means(data.pixels),
        "DeeperCluster features": digits.k_means(digits.features(backbone, data.images)),
    }
    for name, cluster in found.items():
        score = digits.mutual_information(cluster, data.labels)
        print(f"{name:<22} NMI {score:.3f}, accuracy {digits.accuracy(cluster, data.labels):.1%}")
    figures.save(figures.clusters(data.images, data.labels, found), options.out)
    print(f"figure: {options.out}")


if __name__ == "__main__":
    main()
