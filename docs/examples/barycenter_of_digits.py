"""Digits of one kind at places by chance: their mean, barycentre and debiased barycentre."""

import argparse
import time

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

import sinkhorn_ot as so
from sinkhorn_ot.command.demo import digits


def strewn(digit: int, count: int, side: int) -> Tensor:
    """Return images of a digit, (count, side, side), of mass one each, at places by chance."""
    data = digits.load()
    images = data.images[data.labels == digit][:count].double()
    half = side // 2
    small = interpolate(images, (half, half), mode="bicubic")[:, 0].clamp(min=0)
    canvas = small.new_zeros(len(small), side, side)
    random = torch.Generator().manual_seed(0)
    corners = torch.randint(side - half + 1, (len(small), 2), generator=random).tolist()
    for image, digit_at, (top, left) in zip(canvas, small, corners, strict=True):
        image[top : top + half, left : left + half] = digit_at
    return canvas / canvas.sum((1, 2), keepdim=True)


def spread(image: Tensor) -> float:
    """Return over how many pixels the mass lies, as many as equal ones would be."""
    return float(1 / image.square().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digit", type=int, default=3, choices=range(10))
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--side", type=int, default=32, help="pixels along an edge")
    parser.add_argument("--reg", type=float, default=1e-3, help="edges are one long")
    parser.add_argument("--out", default="barycenter_of_digits.png")
    options = parser.parse_args()

    images = strewn(options.digit, options.images, options.side)
    print(f"{len(images)} images of a {options.digit}, {options.side} x {options.side} pixels")
    # squared distances between pixels, of which no matrix is formed
    cost = so.GridCost((options.side, options.side))
    shown = {"one of them": images[0], "mean": images.mean(0)}
    for name, debiased in (("barycentre", False), ("debiased", True)):
        start = time.perf_counter()
        r = so.barycenter(images.flatten(1), cost, options.reg, debiased=debiased, tol=1e-4)
        took = time.perf_counter() - start
        print(f"{name}: {r.status.name} after {int(r.n_iter)} sweeps, {took:.2f} s")
        shown[name] = r.histogram.view_as(images[0])
    for name, image in shown.items():
        print(f"{name:>12} lies on {spread(image):5.1f} pixels")

    figure = Figure(figsize=(7, 2), layout="constrained")
    for at, (name, image) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        at.imshow(image.numpy(), cmap="Greys")
        at.set_title(name, fontsize=9)
        at.set_axis_off()
    figure.savefig(options.out, dpi=150)
    print(f"figure: {options.out}")


if __name__ == "__main__":
    main()
