"""DeeperCluster on digits: clusters times rotations, and sub-clusters inside each.

Every image is shown turned by a random number of quarters. The network says which cluster it is of
and how it is turned, and inside that super-class which sub-cluster it is of.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from sinkhorn_ot.adapters import deepercluster_labels, deepercluster_loss, rotate
from sinkhorn_ot.command.demo import digits, judge
from sinkhorn_ot.command.demo.training import epochs_of


def train(
    images: Tensor,
    epochs: int,
    *,
    m: int = 10,
    k: int = 3,
    every: int = 10,
    batch: int = 64,
    seed: int = 0,
) -> nn.Module:
    """Return the trained backbone: m clusters times four rotations, k sub-clusters in each."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    backbone = digits.Backbone()
    first, second = nn.Linear(backbone.width, 4 * m), nn.Linear(backbone.width, 4 * m * k)
    weights = [*backbone.parameters(), *first.parameters(), *second.parameters()]
    optimizer = torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-5)
    found = None
    for epoch in epochs_of("DeeperCluster", epochs, optimizer, progress=True):
        # labels are kept for some epochs, as in the paper: two levels take long to learn
        if epoch % every == 0:
            seen = digits.features(backbone, images)
            found = deepercluster_labels(seen, m, k, seed=epoch)
            first.reset_parameters()
            second.reset_parameters()
        assert found is not None
        for index in torch.randperm(len(images), generator=random).split(batch):
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
    backbone = train(
        data.images,
        options.epochs,
        m=options.clusters,
        k=options.inside,
        every=options.every,
        batch=options.batch,
        seed=options.seed,
    )
    found = {
        "raw pixels": judge.pixels(data),
        "DeeperCluster features": judge.features(backbone, data),
    }
    judge.show(data, found, options.out)


if __name__ == "__main__":
    main()
