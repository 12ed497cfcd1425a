"""Entropic transport between two clouds of points: its cost, its marginals, where points go."""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

import sinkhorn_ot as so


def clouds(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a ring and two blobs."""
    random = torch.Generator().manual_seed(0)
    angle = 2 * torch.pi * torch.rand(n, generator=random)
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    ring += 0.05 * torch.randn(n, 2, generator=random)
    side = torch.randint(0, 2, (n, 1), generator=random) * 2.0 - 1
    blobs = torch.cat([2.2 * side, 0.8 * side], 1)
    return ring, blobs + 0.25 * torch.randn(n, 2, generator=random)


def draw(x: torch.Tensor, y: torch.Tensor, sent: torch.Tensor) -> Figure:
    """Both clouds, and an arrow from each source point to where it is sent on average."""
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    way = (sent - x).numpy()
    axes.quiver(*x.T.numpy(), *way.T, angles="xy", scale_units="xy", scale=1, width=2e-3, alpha=0.4)
    axes.scatter(*x.T.numpy(), s=8, color="#1f6fb4", label="source")
    axes.scatter(*y.T.numpy(), s=8, color="#d1492e", label="target")
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.legend(frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--reg", type=float, default=0.05)
    parser.add_argument("--out", type=Path, default=Path("solve_points.png"))
    options = parser.parse_args()

    x, y = clouds(options.points)
    # costs are computed in blocks and never stored
    r = so.solve(so.PointCloud(x, y), reg=options.reg)
    print(r)
    print(f"cost {r.value_linear:.4f}, objective {r.value:.4f}, duality gap {r.gap:.1e}")

    # products with the plan do not form it either
    rows = r.apply(torch.ones(len(y)))
    print(f"rows sum to 1/n within {(rows * len(x) - 1).abs().max():.1e} of it")
    sent = r.barycentric(y)
    draw(x, y, sent).savefig(options.out, dpi=150)
    print(f"figure: {options.out}")


if __name__ == "__main__":
    main()
