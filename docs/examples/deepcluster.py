"""DeepCluster on digits: k-means of the network's features gives the labels that it learns.

Two things decide on a data set this small. The clusters keep their names from epoch to epoch
(`matched`), so that the classifier is kept; begun again at each epoch, as in the paper, it has a
handful of steps and never learns anything. And small batches give it more of them. `--reset` and
`--batch 256` show the difference.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkhorn_ot.adapters import DeepClusterLabels, k_means
from sinkhorn_ot.command.demo import digits, judge
from sinkhorn_ot.command.demo.training import epochs_of


def whitened(features: Tensor, width: int = 32) -> Tensor:
    """Return the first principal components at equal variance, as unit vectors."""
    h = features.double() - features.double().mean(0)
    return F.normalize(torch.linalg.svd(h, full_matrices=False)[0][:, :width], dim=1)


def train(
    images: Tensor,
    epochs: int,
    *,
    clusters: int = 30,
    batch: int = 64,
    reset: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Return the trained backbone."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    backbone = digits.Backbone()
    classify = nn.Linear(backbone.width, clusters)
    weights = [*backbone.parameters(), *classify.parameters()]
    optimizer = torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-5)
    found: DeepClusterLabels | None = None
    for epoch in epochs_of("DeepCluster", epochs, optimizer, progress=True):
        seen = whitened(digits.features(backbone, images))
        fresh = k_means(seen, clusters, seed=epoch)
        if reset:
            classify.reset_parameters()
        found = fresh if found is None or reset else fresh.matched(found.labels)
        # every cluster is seen equally often
        order = torch.multinomial(found.sample_weights(), len(images), True, generator=random)
        for index in order.split(batch):
            logits = classify(backbone(digits.view(images[index], random)))
            loss = F.cross_entropy(logits, found.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--clusters", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--reset", action="store_true", help="begin the classifier anew each epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("deepcluster.png"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    data = digits.load(options.images)
    backbone = train(
        data.images,
        options.epochs,
        clusters=options.clusters,
        batch=options.batch,
        reset=options.reset,
        seed=options.seed,
    )
    found = {
        "raw pixels": judge.pixels(data),
        "DeepCluster features": judge.features(backbone, data),
    }
    judge.show(data, found, options.out)


if __name__ == "__main__":
    main()
