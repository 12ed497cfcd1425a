"""Points flow to a target down the Sinkhorn divergence; down transport itself they would shrink."""

import argparse
import math
import time

import torch

import sinkhorn_ot as so


def clouds(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points in a small square, and on two half moons."""
    random = torch.Generator().manual_seed(0)
    start = 0.2 * torch.rand(n, 2, generator=random, dtype=torch.float64)
    angle = math.pi * torch.rand(n, generator=random, dtype=torch.float64)
    moons = torch.stack([angle.cos(), angle.sin()], 1)
    moons[n // 2 :] = torch.tensor([1.0, 0.5], dtype=torch.float64) - moons[n // 2 :]
    return start, moons + 0.03 * torch.randn(n, 2, generator=random, dtype=torch.float64)


def flow(loss, x: torch.Tensor, steps: int) -> torch.Tensor:
    """Return where the points are after so many steps, each half of the way."""
    for _ in range(steps):
        x = x.detach().requires_grad_()
        loss(x).backward()
        # the gradient of a point of weight 1 / n is 2 / n of its way
        x = x - 0.25 * len(x) * x.grad
    return x.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()

    x, y = clouds(options.points)
    debiased = so.SinkhornDivergence(reg=0.3)
    losses = {
        "divergence": lambda x: debiased(x, y),
        "transport": lambda x: so.solve(so.PointCloud(x, y), reg=0.3).value,
    }
    for name, loss in losses.items():
        begun = time.perf_counter()
        end = flow(loss, x, options.steps)
        took = time.perf_counter() - begun
        wide = float(end.var(0).sum() / y.var(0).sum())
        left = float(so.solve_exact(so.PointCloud(end, y)).value)
        print(f"{name:>10}: {wide:.0%} as wide as the target, {left:.4f} away, {took:.1f} s")


if __name__ == "__main__":
    main()
