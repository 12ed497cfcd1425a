"""Marginal error after each sweep: Sinkhorn's own step, Nesterov's momentum, Anderson's mixing."""

from functools import cache

import data
from matplotlib.figure import Figure
from style import DASHES, Theme, table

import sinkhorn_ot as so


REGS = (1e-1, 1e-2, 1e-3)
KINDS = {"plain": so.Plain(), "Nesterov": so.Nesterov(), "Anderson": so.Anderson()}
TOLS = (1e-3, 1e-6, 1e-9)


@cache
def runs() -> dict[tuple[float, str], list[float]]:
    """Return the errors of every run, one per sweep."""
    C, a, b = data.points()
    out = {}
    for reg in REGS:
        for kind, acceleration in KINDS.items():
            errors: list[float] = []
            so.solve(
                C,
                a,
                b,
                reg,
                method=so.Sinkhorn(acceleration, anneal=None),
                tol=1e-9,
                max_iter=10_000,
                on_fail="ignore",
                callback=lambda p, errors=errors: errors.append(p.marginal_error),
            )
            out[reg, kind] = errors
    return out


def draw(theme: Theme) -> Figure:
    """One panel per reg, both axes logarithmic."""
    figure = Figure(figsize=(9.6, 3.3))
    panels = figure.subplots(1, len(REGS), sharey=True)
    for at, reg in zip(panels, REGS, strict=True):
        for k, kind in enumerate(KINDS):
            errors = runs()[reg, kind]
            # few enough points for a light file, evenly spread on a logarithmic axis
            keep = sorted({min(len(errors), round(1.02**i)) for i in range(500)} | {1})
            y = [errors[i - 1] for i in keep]
            at.loglog(keep, y, color=theme.series[k], linestyle=DASHES[k], label=kind)
        at.set_title(f"reg = {reg:g}")
        at.set_xlabel("sweeps")
        at.grid(True, axis="y")
        at.set_ylim(3e-10, 3)
    panels[0].set_ylabel("marginal error")
    panels[0].legend(loc="lower left")
    figure.subplots_adjust(wspace=0.08)
    return figure


def tables() -> None:
    """Write the sweeps to each error."""
    rows = []
    for reg in REGS:
        for kind in KINDS:
            errors = runs()[reg, kind]
            reached = [
                next((str(i + 1) for i, e in enumerate(errors) if e <= t), "–") for t in TOLS
            ]
            rows.append([f"{reg:g}", kind, *reached])
    table("convergence", ["reg", "acceleration", *(f"to {t:g}" for t in TOLS)], rows)
