"""CLOT on digits: each view's transport labels are predicted from the other view, and contrasted.

`CLOTLoss` is one call per step: it labels the batch in both views, swaps the labels, and adds the
contrastive term.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from sinkhorn_ot.adapters import CLOTLoss
from sinkhorn_ot.command.demo import digits, judge
from sinkhorn_ot.command.demo.training import batches, epochs_of


def train(images: Tensor, epochs: int, seed: int) -> tuple[nn.Module, Tensor]:
    """Return the trained backbone and the cluster of every image."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    backbone = digits.Backbone()
    clusters = nn.Linear(backbone.width, 10)
    embed = nn.Sequential(
        nn.Linear(backbone.width, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32)
    )
    weights = [*backbone.parameters(), *clusters.parameters(), *embed.parameters()]
    optimizer = torch.optim.Adam(weights, lr=2e-3, weight_decay=1e-6)
    criterion = CLOTLoss(lamb=5.0, temperature=0.5)
    for _ in epochs_of("CLOT", epochs, optimizer, progress=True):
        for index in batches(len(images), random):
            h = backbone(torch.cat([digits.view(images[index], random) for _ in range(2)]))
            loss = criterion(*clusters(h).chunk(2), *embed(h).chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    backbone.eval()
    with torch.no_grad():
        return backbone, clusters(backbone(images)).argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("clot.png"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    data = digits.load(options.images)
    backbone, clusters = train(data.images, options.epochs, options.seed)
    found = {
        "raw pixels": judge.pixels(data),
        "CLOT features": judge.features(backbone, data),
        "CLOT clusters": judge.clusters(clusters, data),
    }
    judge.show(data, found, options.out)


if __name__ == "__main__":
    main()
