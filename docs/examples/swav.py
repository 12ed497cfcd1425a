"""SwAV on digits: a small network learns to predict the code of one view from another view.

The loop is `train_swav` in `sinkhorn_ot/command/demo/training.py`; in it,
`so.swav_codes` is one call in its loss.
"""

import argparse
from pathlib import Path

import torch

from sinkhorn_ot.command.demo import digits, judge, training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    parser.add_argument("--prototypes", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("swav.png"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    data = digits.load(options.images)
    backbone = training.train_swav(
        data.images, options.epochs, prototypes=options.prototypes, seed=options.seed
    )
    found = {"raw pixels": judge.pixels(data), "SwAV features": judge.features(backbone, data)}
    judge.show(data, found, options.out)


if __name__ == "__main__":
    main()
