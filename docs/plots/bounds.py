"""A feasible dual below the unregularised optimum, a feasible plan above it, against reg."""

from functools import cache

import data
import torch
from matplotlib.figure import Figure
from style import DASHES, MARKS, Theme, table

import sinkhorn_ot as so


def regs() -> torch.Tensor:
    """Return the grid of reg."""
    return torch.logspace(-4, 0, 13, dtype=torch.float64)


@cache
def curves() -> tuple[float, list[so.Transport]]:
    """Return the optimum and an entropic solution per reg."""
    C, a, b = data.points(200)
    solved = [so.solve(C, a, b, reg, tol=1e-7, on_fail="ignore") for reg in regs().tolist()]
    return float(so.solve_exact(C, a, b).value_linear), solved


def draw(theme: Theme) -> Figure:
    """Left the bounds themselves, right their distance from the optimum."""
    best, solved = curves()
    proofs = [r.certificate() for r in solved]
    lower, upper = ([float(getattr(c, s)) for c in proofs] for s in ("lower", "upper"))
    value = [float(r.value) for r in solved]
    figure = Figure(figsize=(9.6, 3.4))
    left, right = figure.subplots(1, 2)
    blue, orange, green, _ = theme.series
    left.fill_between(regs(), lower, upper, color=blue, alpha=0.16, linewidth=0)
    left.semilogx(
        regs(), upper, color=orange, marker=MARKS[1], markersize=4, label="upper: rounded plan"
    )
    left.semilogx(regs(), value, color=green, linestyle=DASHES[2], label="value, with the KL term")
    left.axhline(best, color=theme.ink, linewidth=1, linestyle=DASHES[1], label="exact optimum")
    left.semilogx(
        regs(), lower, color=blue, marker=MARKS[0], markersize=4, label="lower: c-transform"
    )
    left.set(xlabel="reg, for costs in [0, 1]", ylabel="cost")
    left.set_title("The optimum lies in the band")
    left.legend(loc="upper left", fontsize=9)
    left.grid(True, axis="y")
    right.loglog(
        regs(),
        [u - best for u in upper],
        color=orange,
        marker=MARKS[1],
        markersize=4,
        label="upper − optimum",
    )
    right.loglog(
        regs(),
        [best - v for v in lower],
        color=blue,
        marker=MARKS[0],
        markersize=4,
        label="optimum − lower",
    )
    right.set(xlabel="reg, for costs in [0, 1]", ylabel="distance from the optimum")
    right.set_title("Both bounds close as reg falls")
    right.legend(loc="upper left", fontsize=9)
    right.grid(True, axis="y")
    figure.subplots_adjust(wspace=0.26)
    return figure


def tables() -> None:
    """Write the gap at a few reg."""
    best, solved = curves()
    rows = []
    for reg, r in list(zip(regs().tolist(), solved, strict=True))[::3]:
        c = r.certificate()
        rows.append(
            [f"{reg:g}", f"{float(c.lower):.6f}", f"{float(c.upper):.6f}", f"{float(c.gap):.1e}"]
        )
    rows.append(["exact", f"{best:.6f}", f"{best:.6f}", "0"])
    table("bounds", ["reg", "lower", "upper", "gap"], rows)
