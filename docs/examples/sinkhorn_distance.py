"""Cuturi's distance between images of digits, at three bounds on the divergence, in one call."""

import argparse
import time

import torch

import sinkhorn_ot as so
from sinkhorn_ot.command.demo import digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60)
    options = parser.parse_args()

    data = digits.load(options.images)
    mass = data.pixels.double()
    mass /= mass.sum(1, keepdim=True)
    grid = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).double()
    # a metric, so that the distances keep the triangle inequality
    C = torch.cdist(grid, grid)
    queries, library = mass[:5], mass[5:]
    alphas = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    start = time.perf_counter()
    # (3, 1, 1) against (5, 1, 64) and (L, 64): dimensions broadcast, the cost is stored once
    r = so.sinkhorn_distance(C, queries[:, None, :], library, alpha=alphas[:, None, None])
    took = time.perf_counter() - start
    print(f"{r.value.numel()} distances in one call, 3 alphas, {took:.2f} s, {r.status.name}")
    for k, alpha in enumerate(alphas.tolist()):
        nearest = r.value[k].argmin(1)
        hits = int((data.labels[5:][nearest] == data.labels[:5]).sum())
        print(
            f"alpha {alpha:g}: reg {float(r.reg[k].min()):.3f} to {float(r.reg[k].max()):.3f}, "
            f"worst gap {float(r.gap[k].max()):.1e}, nearest shows the same digit for {hits} of 5"
        )


if __name__ == "__main__":
    main()
