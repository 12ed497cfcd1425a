"""Labels in exact counts: the digits among ten of them, each of which takes its share and no more.

Ten digits are chosen as examples, and all others are labelled by the example they are nearest to.
The nearest labels are unequal in number; the best ones in equal counts are a small loss away,
and the bound says that nothing is nearer.
"""

import argparse

import torch

import sinkhorn_ot as so
from sinkhorn_ot.command.demo import digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=None, help="use only the first so many")
    options = parser.parse_args()

    data = digits.load(options.images)
    first = torch.stack([(data.labels == k).nonzero()[0, 0] for k in range(10)])
    scores = -torch.cdist(data.pixels, data.pixels[first]).double().square()
    truth = torch.bincount(data.labels, minlength=10)

    nearest = scores.argmax(1)
    for name, counts in (("equal", None), ("as they are", truth)):
        for mode in ("fast", "exact"):
            found = so.balanced_labels(scores, counts, mode=mode)
            right = float((found.labels == data.labels).double().mean())
            print(
                f"{name}, {mode}: value {found.value:.3f}, at most {found.bound:.3f}, "
                f"right {right:.1%}, counts {found.counts.tolist()}"
            )
    right = float((nearest == data.labels).double().mean())
    print(f"nearest: value {scores.amax(1).sum():.3f}, right {right:.1%}")


if __name__ == "__main__":
    main()
