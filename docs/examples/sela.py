"""SeLa on digits: a small network gives itself labels, in equal shares, and learns from them.

The loop is `train_sela` in `sinkhorn_ot/command/demo/training.py`; in it,
`so.sela_labels` is one call per epoch.
"""

import argparse
from pathlib import Path

import torch

from sinkhorn_ot.command.demo import digits, judge, training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("sela.png"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    data = digits.load(options.images)
    backbone, labels = training.train_sela(
        data.images, options.epochs, heads=options.heads, seed=options.seed
    )
    print(f"converged: {labels.converged.tolist()}, sweeps: {labels.n_iter.tolist()}")
    print(f"samples per label, first head: {labels.counts[0].tolist()}")
    found = {
        "raw pixels": judge.pixels(data),
        "SeLa labels": judge.clusters(labels.labels[0], data),
        "SeLa features": judge.features(backbone, data),
    }
    judge.show(data, found, options.out)


if __name__ == "__main__":
    main()
