"""A DINO-like loop on digits: a student predicts the balanced codes of a slowly moving teacher.

The teacher sees two views; their outputs are one problem for `dino_codes`. The student predicts
the code of each from the other. This is the loss on whole images, without patches.
"""

import argparse
import copy

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

import sinkhorn_ot as so
from sinkhorn_ot.demo import digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--momentum", type=float, default=0.99, help="of the teacher")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    random = torch.Generator().manual_seed(options.seed)
    data = digits.load(options.images)
    student = Network()
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-3)

    bar = tqdm(range(options.epochs), desc="DINO", unit="epoch")
    for _ in bar:
        for index in torch.randperm(len(data.images), generator=random).split(options.batch)[:-1]:
            views = torch.cat([digits.view(data.images[index], random) for _ in range(2)])
            codes = so.adapters.dino_codes(teacher(views), 0.05)
            predicted = F.log_softmax(student(views) / 0.1, -1)
            first, second = predicted.chunk(2)
            loss = -(codes * torch.cat([second, first])).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for kept, moved in zip(teacher.parameters(), student.parameters(), strict=True):
                    kept.lerp_(moved, 1 - options.momentum)
        bar.set_postfix(loss=f"{loss.item():.3f}")

    for name, found in {
        "raw pixels": digits.k_means(data.pixels),
        "DINO features": digits.k_means(digits.features(teacher.backbone, data.images)),
    }.items():
        print(f"{name:<14} NMI {digits.mutual_information(found, data.labels):.3f}")


class Network(nn.Module):
    """A backbone, a head, and prototypes of length one."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = digits.Backbone()
        self.head = nn.Sequential(
            nn.Linear(self.backbone.width, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32)
        )
        self.prototypes = nn.Parameter(torch.randn(30, 32))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        z = F.normalize(self.head(self.backbone(images)), dim=1)
        return z @ F.normalize(self.prototypes, dim=1).t()


if __name__ == "__main__":
    main()
