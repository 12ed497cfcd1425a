"""Clusters of free, equal and bounded sizes; then matching where some points have no partner."""

import argparse

import torch

import sinkhorn_ot as so


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args()
    random = torch.Generator().manual_seed(0)
    clusters(options.samples, random)
    outliers(options.samples // 5, random)


def clusters(n: int, random: torch.Generator) -> None:
    """Assign samples by their scores, where the last cluster is nobody's best."""
    scores = torch.randn(n, 6, generator=random) + torch.tensor([4.0, 2, 0, 0, -2, -9])
    print(f"shares of 6 clusters, {n} samples")
    asked = {"free": 0, "equal": None, "from 5% to 30%": so.Between(0.05, 0.3)}
    for name, columns in asked.items():
        r = so.solve(-scores, reg=0.1, unbalanced=(None, columns))
        sizes = "  ".join(f"{size:5.1%}" for size in r.plan.sum(0).tolist())
        gain = (r.plan * scores).sum()
        print(f"{name:>15}  {sizes}   mean score {gain:.2f}, {r.status.name}")
    # what a bound costs: above zero where a cluster is filled up, below where it is full
    print(f"{'prices':>15}  " + "  ".join(f"{g:5.2f}" for g in r.g.tolist()))


def outliers(n: int, random: torch.Generator) -> None:
    """Match points with their noisy copies, a quarter of which are elsewhere."""
    x = torch.rand(n, 2, generator=random, dtype=torch.float64)
    y = x + 0.005 * torch.randn(n, 2, generator=random, dtype=torch.float64)
    lost = torch.arange(n) < n // 4
    y[lost] += 3
    kept = 1 - lost.double().mean().item()
    print(f"\n{n} points, {int(lost.sum())} of whose partners are far")
    ways = {
        "exact": {},
        f"mass={kept:g}": {"mass": kept},
        # worth moving below twice the price: what both ends would pay to stay
        "TV(0.1)": {"unbalanced": so.TV(0.1)},
    }
    for name, way in ways.items():
        r = so.solve(so.PointCloud(x, y), reg=2e-4, tol=1e-4, **way)
        to_lost = r.plan[:, lost].sum()
        right = r.plan.diagonal()[~lost].sum() / r.plan.sum()
        print(
            f"{name:>10}: moves {r.plan.sum():.2f}, to outliers {to_lost:.3f}, "
            f"to the right partner {right:.0%}, {r.status.name}"
        )


if __name__ == "__main__":
    main()
