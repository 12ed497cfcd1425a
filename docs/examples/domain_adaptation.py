"""Domain adaptation: digits whose labels are known teach a classifier of pale ones, by a map.

The map is fitted on few images without a label, and moves all that have one.
"""

import argparse
import time

import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import sinkhorn_ot as so


def digits() -> tuple[Tensor, Tensor]:
    """Return images, (N, 64) in [0, 1], and which digit each one is, in random order."""
    x, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(x / 16.0)[order], torch.from_numpy(labels)[order]


def pale(x: Tensor) -> Tensor:
    """Return images of little contrast on a grey ground."""
    return 0.4 * x + 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", type=int, default=400, help="images of each kind to fit on")
    parser.add_argument("--reg", type=float, default=0.2)
    parser.add_argument("--pot", action="store_true", help="compare with POT")
    options = parser.parse_args()
    torch.set_num_threads(1)

    images, labels = digits()
    source, known = images[:900], labels[:900]
    target, judge = pale(images[900:]), labels[900:]
    seen, unseen = target[:450], target[450:]

    def accuracy(taught: Tensor) -> float:
        nearest = KNeighborsClassifier(3).fit(taught.numpy(), known.numpy())
        return float(nearest.score(unseen.numpy(), judge[450:].numpy()))

    x, y = source[: options.fit], seen[: options.fit]
    began = time.process_time()
    r = so.solve(so.PointCloud(x, y), reg=options.reg)
    sent = r.map(source)
    seconds = time.process_time() - began
    print(r)
    print(f"k-NN on pale digits, taught by digits as they are: {accuracy(source):.3f}")
    print(f"taught by digits that the map made pale: {accuracy(sent):.3f} ({seconds:.2f} s)")
    print(f"if pale digits had labels: {accuracy(pale(source)):.3f}")
    if options.pot:
        import ot

        began = time.process_time()
        da = ot.da.SinkhornTransport(reg_e=options.reg, norm=None, tol=1e-9, max_iter=10_000)
        da.fit(Xs=x.numpy(), Xt=y.numpy())
        # images that it was fitted on are told from others by being the same array
        parts = [da.transform(Xs=x.numpy()), da.transform(Xs=source[options.fit :].numpy())]
        seconds = time.process_time() - began
        sent = torch.cat([torch.from_numpy(part) for part in parts])
        print(
            f"by POT, whose new images follow the nearest: {accuracy(sent):.3f} ({seconds:.2f} s)"
        )


if __name__ == "__main__":
    main()
