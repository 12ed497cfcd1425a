"""A MSN-like loop on digits: a masked view predicts the sharpened code of a whole one.

The anchor sees a view with a part of it masked, the slowly moving target the whole of another one.
`msn_codes` makes the target's predictions sharp and spreads them over the prototypes.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sinkhorn_ot as so
from sinkhorn_ot.command.demo import digits, judge
from sinkhorn_ot.command.demo.training import Cosines, batches, epochs_of, teacher_of


def masked(images: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Return the images without a share of their patches of 2 x 2 pixels."""
    side = images.shape[-1] // 2
    kept = torch.rand(len(images), 1, side, side, generator=random) >= share
    return images * kept.repeat_interleave(2, -1).repeat_interleave(2, -2)


def train(images: Tensor, epochs: int, *, share: float = 0.3, seed: int = 0) -> nn.Module:
    """Return the target's backbone."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    anchor = Cosines()
    target = teacher_of(anchor)
    optimizer = torch.optim.Adam(anchor.parameters(), lr=2e-3)
    for _ in epochs_of("MSN", epochs, optimizer, progress=True):
        for index in batches(len(images), random, 128):
            one, two, whole = (digits.view(images[index], random) for _ in range(3))
            codes = so.adapters.msn_codes(target(whole))
            views = torch.cat([masked(one, share, random), masked(two, share, random)])
            predicted = F.log_softmax(anchor(views) / 0.1, -1)
            mean = predicted.exp().mean(0)
            # the paper's second term: in the mean, anchors use all prototypes
            loss = -(codes.repeat(2, 1) * predicted).sum(-1).mean() + (mean * mean.log()).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            target.follow(anchor, 0.99)
    return target.backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--share", type=float, default=0.3, help="of the patches that are masked")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("msn.png"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    data = digits.load(options.images)
    backbone = train(data.images, options.epochs, share=options.share, seed=options.seed)
    found = {"raw pixels": judge.pixels(data), "MSN features": judge.features(backbone, data)}
    judge.show(data, found, options.out)


if __name__ == "__main__":
    main()
