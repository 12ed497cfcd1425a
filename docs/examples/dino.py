"""A DINO-like loop on digits: a student predicts the balanced codes of a slowly moving teacher.

The teacher sees two views; their outputs are one problem for `dino_codes`. The student predicts
the code of each from the other. This is the loss on whole images, without patches.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import sinkhorn_ot as so
from sinkhorn_ot.command.demo import digits, judge
from sinkhorn_ot.command.demo.training import Cosines, batches, epochs_of, teacher_of


def train(images: Tensor, epochs: int, *, momentum: float = 0.99, seed: int = 0) -> Cosines:
    """Return the teacher."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    student = Cosines()
    teacher = teacher_of(student)
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-3)
    for _ in epochs_of("DINO", epochs, optimizer, progress=True):
        for index in batches(len(images), random, 128):
            views = torch.cat([digits.view(images[index], random) for _ in range(2)])
            codes = so.adapters.dino_codes(teacher(views), 0.05)
            predicted = F.log_softmax(student(views) / 0.1, -1)
            first, second = predicted.chunk(2)
            loss = -(codes * torch.cat([second, first])).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            teacher.follow(student, momentum)
    return teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--momentum", type=float, default=0.99, help="of the teacher")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("dino.png"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    data = digits.load(options.images)
    teacher = train(data.images, options.epochs, momentum=options.momentum, seed=options.seed)
    found = {
        "raw pixels": judge.pixels(data),
        "DINO features": judge.features(teacher.backbone, data),
    }
    judge.show(data, found, options.out)


if __name__ == "__main__":
    main()
