"""The path of the annealing: the error at each stage, and the potential it hands on."""

from functools import cache

import data
import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from style import Theme, table

import sinkhorn_ot as so


REG = 1e-4


@cache
def path() -> tuple[list[so.Progress], list[so.Progress]]:
    """Return what the callback was told, with annealing and without."""
    C, a, b = data.points()
    told: tuple[list[so.Progress], list[so.Progress]] = ([], [])
    for out, anneal in zip(told, (so.Anneal(), None), strict=True):
        so.solve(
            C,
            a,
            b,
            REG,
            method=so.Sinkhorn(anneal=anneal),
            tol=1e-6,
            on_fail="ignore",
            callback=lambda p, out=out: out.append(p),
        )
    return told


def draw(theme: Theme) -> Figure:
    """Left the error along the path, right the potentials of a one-dimensional problem."""
    figure = Figure(figsize=(9.6, 3.4))
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    _errors(theme, left)
    _potentials(theme, figure, right)
    figure.subplots_adjust(wspace=0.28)
    return figure


def _errors(theme: Theme, at: mpl.axes.Axes) -> None:
    annealed, direct = path()
    at.loglog(
        [p.n_iter for p in direct],
        [p.marginal_error for p in direct],
        color=theme.soft,
        linestyle=(0, (1.2, 1.6)),
        label="started at reg",
    )
    at.loglog(
        [p.n_iter for p in annealed],
        [p.marginal_error for p in annealed],
        color=theme.series[0],
        label="annealed",
    )
    starts = [
        p for k, p in enumerate(annealed) if k == 0 or p.reg_factor != annealed[k - 1].reg_factor
    ]
    for p in starts[1:]:
        at.axvline(p.n_iter - 0.5, color=theme.series[1], linewidth=0.9)
    last = starts[-1].n_iter
    at.annotate(
        "reg is divided by 4\nat each line",
        (last, 1.5e-6),
        xytext=(6, 0),
        textcoords="offset points",
        ha="left",
        color=theme.series[1],
        fontsize=9,
    )
    at.set(xlabel="sweeps", ylabel="marginal error at the stage's reg", ylim=(5e-7, 3))
    at.set_title(f"The path to reg = {REG:g}")
    at.legend(loc="upper right", fontsize=9)
    at.grid(True, axis="y")


def _potentials(theme: Theme, figure: Figure, at: mpl.axes.Axes) -> None:
    C, a, b = data.histograms()
    x = torch.linspace(0, 1, len(b))
    colours = mpl.colormaps["viridis" if theme.name == "dark" else "viridis_r"]
    regs = [0.25 / 4**k for k in range(6)]
    for k, reg in enumerate(regs):
        g = so.solve(C, a, b, reg).g
        label = f"{reg:.2g}" if k in (0, len(regs) - 1) else None
        shade = 0.12 + 0.8 * k / (len(regs) - 1)
        at.plot(x, g - g.mean(), color=colours(shade), label=label and f"reg = {label}")
    at.set(xlabel="position", ylabel="potential g, centred")
    at.set_title("The potential it hands on")
    at.legend(loc="upper center", fontsize=9)
    at.grid(True, axis="y")


def tables() -> None:
    """Write the sweeps to 1e-6 with and without annealing."""
    C, a, b = data.points()
    rows = []
    for reg in (1e-2, 1e-3, 3e-4, 1e-4):
        cells = []
        for anneal in (so.Anneal(), None):
            r = so.solve(
                C, a, b, reg, method=so.Sinkhorn(anneal=anneal), tol=1e-6, on_fail="ignore"
            )
            reached = f"{int(r.n_iter)}"
            cells.append(
                reached if r.converged else f"{reached}, stopped at {float(r.marginal_error):.0e}"
            )
        rows.append([f"{reg:g}", *cells])
    table("annealing", ["reg", "sweeps, annealed", "sweeps, started at reg"], rows)
