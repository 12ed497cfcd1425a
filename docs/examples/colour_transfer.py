"""Colour transfer: fit on a few pixels of two photographs, then map every pixel of one."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor

import sinkhorn_ot as so


def photograph(name: str, shrink: int) -> Tensor:
    """Return a photograph, every so many pixels of it, (height, width, 3) in [0, 1]."""
    return torch.from_numpy(load_sample_image(name)[::shrink, ::shrink] / 255.0)


def some(pixels: Tensor, count: int) -> Tensor:
    """Return pixels at random, (count, 3)."""
    random = torch.Generator().manual_seed(0)
    return pixels[torch.randperm(len(pixels), generator=random)[:count]]


def timed(act: object) -> tuple[object, float]:
    """Return what a function returns, and the seconds of one core that it took."""
    began = time.process_time()
    found = act()  # type: ignore[operator]
    return found, time.process_time() - began


def against_pot(x: Tensor, y: Tensor, pixels: Tensor, reg: float) -> None:
    """Print the same by POT, whose new points follow their nearest fitted one."""
    import ot

    da = ot.da.SinkhornTransport(reg_e=reg, norm=None, tol=1e-9, max_iter=10_000)
    _, fit = timed(lambda: da.fit(Xs=x.numpy(), Xt=y.numpy()))
    sent, seconds = timed(lambda: da.transform(Xs=pixels.numpy()))
    colours = len(np.unique(np.round(sent - pixels.numpy(), 9), axis=0))
    print(f"POT: fitted in {fit:.2f} s, {len(pixels)} pixels in {seconds:.2f} s, "
          f"moved in {colours} ways")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, default=1000, help="pixels to fit on")
    parser.add_argument("--shrink", type=int, default=1, help="take every so many pixels")
    parser.add_argument("--reg", type=float, default=0.01)
    parser.add_argument("--pot", action="store_true", help="compare with POT")
    parser.add_argument("--out", type=Path, default=Path("colour_transfer.png"))
    options = parser.parse_args()
    torch.set_num_threads(1)

    source, target = (photograph(k, options.shrink) for k in ("china.jpg", "flower.jpg"))
    pixels = source.reshape(-1, 3)
    x, y = some(pixels, options.pixels), some(target.reshape(-1, 3), options.pixels)
    r, fit = timed(lambda: so.solve(so.PointCloud(x, y), reg=options.reg))
    sent, seconds = timed(lambda: r.map(pixels))
    print(r)
    print(f"fitted in {fit:.2f} s, {len(pixels)} pixels in {seconds:.2f} s")
    if options.pot:
        against_pot(x, y, pixels, options.reg)

    figure = Figure(figsize=(9, 2.2), layout="constrained")
    for at, image in zip(
        figure.subplots(1, 3), (source, target, sent.view_as(source)), strict=True
    ):
        at.imshow(image.clamp(0, 1).numpy())
        at.set_axis_off()
    figure.savefig(options.out, dpi=150)
    print(f"figure: {options.out}")


if __name__ == "__main__":
    main()
