"""How far an entropic plan is from optimal: bounds that anyone can check, and the exact answer."""

import argparse
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import sinkhorn_ot as so


REGS = (3.0, 1.0, 0.3, 0.1, 0.03)


def costs(n: int) -> torch.Tensor:
    """Return what two clouds of n points cost."""
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, n, 3, generator=random, dtype=torch.float64)
    return torch.cdist(x, y + 1).square()


def draw(axes: Axes, exact: float, bounds: list[so.Certificate], colours: list[str]) -> None:
    """At each reg the interval that holds the exact optimum, and the optimum as a line."""
    ends = torch.tensor([[float(c.lower), float(c.upper)] for c in bounds]).T.numpy()
    axes.axhline(exact, color=colours[1], linewidth=1.2)
    axes.vlines(REGS, *ends, color=colours[0], linewidth=3)
    axes.plot(REGS, ends.T, "_", color=colours[0])
    axes.set_xscale("log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("exact_and_certificate.png"))
    options = parser.parse_args()

    C, bounds = costs(options.points), []
    exact = so.solve_exact(C)
    print(f"exact optimum {exact.value:.6f}, {exact.status.name}, by {exact.method}\n")
    print("   reg      cost of the plan    proved to lie in            gap")
    for reg in REGS:
        r = so.solve(C, reg=reg)
        bound = r.certificate()
        bounds.append(bound)
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
    off = max((P.sum(side) * len(P) - 1).abs().max() for side in (0, 1))
    print(f"rounded plan: cost {(P * C).sum():.6f}, marginals off by {off:.1e} of 1/n")

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    draw(axes, float(exact.value), bounds, ["#1f6fb4", "#d1492e"])
    axes.set(xlabel="reg", ylabel="where the optimum is proved to lie")
    figure.savefig(options.out, dpi=150)
    print(f"figure: {options.out}")


if __name__ == "__main__":
    main()
