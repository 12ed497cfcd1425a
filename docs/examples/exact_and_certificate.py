"""How far an entropic plan is from optimal: bounds that anyone can check, and the exact answer."""

import argparse

import torch

import sinkhorn_ot as so


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=300)
    options = parser.parse_args()

    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, options.points, 3, generator=random, dtype=torch.float64)
    C = torch.cdist(x, y + 1).square()

    exact = so.solve_exact(C)
    print(f"exact optimum {exact.value:.6f}, {exact.status.name}, by {exact.method}\n")
    print("   reg      cost of the plan    proved to lie in            gap")
    for reg in (3.0, 1.0, 0.3, 0.1, 0.03):
        r = so.solve(C, reg=reg)
        bound = r.certificate()
        print(
            f"{reg:6.2f}    {r.value_linear:12.6f}      "
            f"[{bound.lower:9.6f}, {bound.upper:9.6f}]   {bound.gap:9.2e}"
        )
        assert bound.lower <= exact.value + 1e-9
        assert bound.upper >= exact.value - 1e-9

    # the lower bound needs no trust: its potentials are feasible, pair by pair
    slack = C - bound.f[:, None] - bound.g[None, :]
    print(f"\nsmallest C - f - g: {slack.min():.1e}")
    # and the upper bound is the cost of a plan with exact marginals
    P = r.round()
    off = max((P.sum(1) * len(x) - 1).abs().max(), (P.sum(0) * len(y) - 1).abs().max())
    print(f"rounded plan: cost {(P * C).sum():.6f}, marginals off by {off:.1e} of 1/n")


if __name__ == "__main__":
    main()
