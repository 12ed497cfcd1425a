"""The marginal error that a given number of sweeps reaches, against reg."""

from functools import cache

import data
import torch
from matplotlib.figure import Figure
from style import DASHES, MARKS, Theme

import sinkhorn_ot as so


SWEEPS = 100
KINDS = {
    "plain": so.Sinkhorn(so.Plain(), anneal=None),
    "Nesterov": so.Sinkhorn(so.Nesterov(), anneal=None),
    "Anderson": so.Sinkhorn(so.Anderson(), anneal=None),
    "Anderson, annealed": so.Sinkhorn(),
}


@cache
def reached() -> dict[str, list[float]]:
    """Return the error after SWEEPS sweeps for every reg."""
    C, a, b = data.points()
    return {
        kind: [
            max(1e-14, float(_run(C, a, b, reg, method).marginal_error)) for reg in regs().tolist()
        ]
        for kind, method in KINDS.items()
    }


def _run(C, a, b, reg, method):
    return so.solve(C, a, b, reg, method=method, tol=1e-13, max_iter=SWEEPS, on_fail="ignore")


def regs() -> torch.Tensor:
    """Return the grid of reg."""
    return torch.logspace(-4, 0, 17, dtype=torch.float64)


def draw(theme: Theme) -> Figure:
    """Draw one line per solver."""
    figure = Figure(figsize=(6.4, 3.5))
    at = figure.subplots()
    for k, (kind, errors) in enumerate(reached().items()):
        at.loglog(
            regs(),
            errors,
            color=theme.series[k],
            linestyle=DASHES[k],
            marker=MARKS[k],
            markersize=4,
            label=kind,
        )
    at.set(xlabel="reg, for costs in [0, 1]", ylabel=f"marginal error after {SWEEPS} sweeps")
    at.grid(True, axis="y")
    at.legend(loc="lower left", fontsize=9)
    return figure
