"""What r.plot() draws: lines between clouds, a matrix between marginals, and a relaxed one."""

import data
from matplotlib.figure import Figure
from style import Theme

import sinkhorn_ot as so


def draw(theme: Theme) -> Figure:
    """Three results as they are drawn when nothing is said of how."""
    C, a, b = data.histograms()
    figure = Figure(figsize=(9.6, 3.0))
    lines, exact, relaxed = figure.subplots(1, 3)
    x, y = data.rows()
    so.solve(so.PointCloud(x, y), reg=0.05).plot(lines)
    so.solve(C, a, b, reg=0.01).plot(exact)
    so.solve(C, a, b, reg=0.01, unbalanced=0.1).plot(relaxed)
    for at, name in ((exact, "r.plot()"), (relaxed, "unbalanced")):
        at.set_xlabel(f"target: {name}", color=theme.ink)
    lines.set_xlabel("r.plot(), between clouds", color=theme.ink)
    figure.subplots_adjust(wspace=0.45)
    return figure
