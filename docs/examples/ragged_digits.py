"""Digits as clouds of their dark pixels, of which each has its own number: one ragged batch."""

import argparse
import time

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import sinkhorn_ot as so
from sinkhorn_ot.command.demo import digits


def padded(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the dark pixels of images, (N, n, 2), nan beyond their number, and that."""
    clouds = [(image > 0.5).nonzero().double() for image in images]
    sizes = torch.tensor([len(cloud) for cloud in clouds])
    return pad_sequence(clouds, batch_first=True, padding_value=torch.nan), sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--reg", type=float, default=0.2, help="in squared pixels")
    options = parser.parse_args()

    data = digits.load(options.images)
    points, sizes = padded(data.images[:, 0])
    print(f"{len(sizes)} images of {int(sizes.min())} to {int(sizes.max())} dark pixels")

    queries = 10
    # (10, 1, n, 2) against (N - 10, n, 2): every query beside every other image
    cost = so.PointCloud(points[:queries, None], points[queries:])
    start = time.perf_counter()
    r = so.solve(cost, reg=options.reg, mask=(sizes[:queries, None], sizes[queries:]), tol=1e-6)
    took = time.perf_counter() - start
    print(f"{r.value.numel()} distances in {took:.2f} s, all converged: {bool(r.converged.all())}")

    nearest = r.value_linear.argmin(1)
    hits = (data.labels[queries:][nearest] == data.labels[:queries]).sum()
    print(f"nearest cloud shows the same digit for {int(hits)} of {queries} queries")


if __name__ == "__main__":
    main()
