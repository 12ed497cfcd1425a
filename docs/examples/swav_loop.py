"""SwAV in a plain training loop, under autocast: prototypes, two queues and one loss, on digits.

Codes come from two views, and all four views predict them. The queues are small here, so that they
are full soon; features are pushed to them from the second epoch on.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

import sinkhorn_ot as so
from sinkhorn_ot.command.demo import digits, judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--queue", type=int, default=384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("swav_loop.png"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    random = torch.Generator().manual_seed(options.seed)
    data = digits.load(options.images)
    backbone = digits.Backbone()
    head = nn.Sequential(
        nn.Linear(backbone.width, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32)
    )
    prototypes = nn.Linear(32, 30, bias=False)
    swav = so.SwAVLoss(queues=[so.SwAVQueue(options.queue, 32) for _ in range(2)])
    weights = [*backbone.parameters(), *head.parameters(), *prototypes.parameters()]
    optimizer = torch.optim.Adam(weights, lr=2e-3)

    bar = tqdm(range(options.epochs), desc="SwAV", unit="epoch")
    for epoch in bar:
        for index in torch.randperm(len(data.images), generator=random).split(options.batch)[:-1]:
            so.normalize_prototypes_(prototypes.weight)
            views = torch.cat([digits.view(data.images[index], random) for _ in range(4)])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                z = F.normalize(head(backbone(views)), dim=1)
                scores = prototypes(z)
                queued = z.chunk(4) if epoch > 0 else None
                loss = swav(scores.chunk(4), queued, prototypes.weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")

    print(f"queues ready: {[queue.ready for queue in swav.queues]}")
    found = {"raw pixels": judge.pixels(data), "SwAV features": judge.features(backbone, data)}
    judge.show(data, found, options.out)


if __name__ == "__main__":
    main()
