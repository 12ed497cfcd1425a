"""SwAV over processes: every rank has samples of its own, and all of them share one set of codes.

    torchrun --nproc-per-node 2 docs/examples/ddp_swav.py

Started without torchrun it is one process. The parts of the ranks are unequal on purpose: in the
codes every sample weighs the same, whatever its rank.
"""

import argparse
import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

import sinkhorn_ot as so
from sinkhorn_ot.command.demo import digits, judge


class Network(nn.Module):
    """Features of length one, and their scores."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = digits.Backbone()
        self.head = nn.Sequential(
            nn.Linear(self.backbone.width, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32)
        )
        self.prototypes = nn.Linear(32, 30, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.prototypes(F.normalize(self.head(self.backbone(images)), dim=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--batch", type=int, default=128, help="of all ranks together, in the mean")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("ddp_swav.png"))
    options = parser.parse_args()

    if "RANK" in os.environ:
        # a rank that is lost ends in an error after this time, and not in a hang
        dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(options.seed)
    order, random = torch.Generator().manual_seed(options.seed), torch.Generator().manual_seed(rank)
    data = digits.load(options.images)
    network = Network()
    wrapped = DistributedDataParallel(network)
    swav = so.SwAVLoss(group=dist.group.WORLD)
    optimizer = torch.optim.Adam(wrapped.parameters(), lr=2e-3)

    bar = tqdm(range(options.epochs), desc="SwAV", unit="epoch", disable=rank > 0)
    for _ in bar:
        for batch in torch.randperm(len(data.images), generator=order).split(options.batch)[:-1]:
            # rank r has a share that grows with r
            shares = torch.arange(1, world + 1) / (world * (world + 1) / 2)
            ends = (shares.cumsum(0) * len(batch)).round().long().tolist()
            mine = batch[ends[rank - 1] if rank else 0 : ends[rank]]
            so.normalize_prototypes_(network.prototypes.weight)
            views = torch.cat([digits.view(data.images[mine], random) for _ in range(4)])
            loss = swav(wrapped(views).chunk(4))
            optimizer.zero_grad()
            # the mean over ranks of these is the mean over samples
            (loss * len(mine) * world / len(batch)).backward()
            optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")

    if rank == 0:
        print(f"processes: {world}")
        found = {
            "raw pixels": judge.pixels(data),
            "SwAV features": judge.features(network.backbone, data),
        }
        judge.show(data, found, options.out)
    # who leaves early cuts the others off
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
