"""Transport when masses differ or points are outliers: marginals that may give way."""

import argparse

import torch

import sinkhorn_ot as so


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200)
    options = parser.parse_args()

    random = torch.Generator().manual_seed(0)
    n = options.points
    x = torch.randn(n, 2, generator=random, dtype=torch.float64)
    y = torch.randn(n, 2, generator=random, dtype=torch.float64)
    # a tenth of the targets lies far out, where no source is
    outlier = torch.arange(n) < n // 10
    y[outlier] += 20
    cost = so.PointCloud(x, y)

    print("penalty on both marginals    mass moved    of it to outliers    mean cost")
    for rho in (None, 100.0, 10.0, 1.0):
        r = so.solve(cost, reg=0.1, unbalanced=rho)
        received = r.apply_transpose(torch.ones(n, dtype=torch.float64))
        mass, lost = received.sum(), received[outlier].sum() / received.sum()
        name = "exact" if rho is None else f"{rho:g}"
        print(f"{name:>12} {mass:24.3f} {lost:18.1%} {r.value_linear / mass:16.3f}")

    # 0 frees a marginal: every source takes its nearest targets, and one pass is the answer
    r = so.solve(cost, reg=0.1, unbalanced=(None, 0))
    print(f"\ntargets free: {r.status.name} after {int(r.n_iter)} sweep(s)")
    # weights need not have one total
    a, b = torch.full((n,), 2.0 / n), torch.full((n,), 1.0 / n)
    r = so.solve(cost, a, b, reg=0.1, unbalanced=1.0)
    print(f"masses 2 and 1: the plan moves {r.apply(torch.ones(n)).sum():.3f}")


if __name__ == "__main__":
    main()
