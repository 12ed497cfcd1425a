"""Cuturi's distance against alpha, from independence to exact transport, and its reg."""

from functools import cache

import data
import torch
from matplotlib.figure import Figure
from style import DASHES, Theme, table

import sinkhorn_ot as so


@cache
def curve() -> tuple[so.SinkhornDistance, float, float]:
    """Return the distances at a grid of alpha, the exact optimum, and its plan's divergence."""
    C, a, b = data.histograms()
    exact = so.sinkhorn_distance(C, a, b, alpha=torch.inf)
    most = float(exact.kl)
    shares = torch.cat([torch.logspace(-5, -1.5, 20), torch.linspace(0.04, 1.2, 60)]).double()
    alphas = most * torch.cat([shares.new_zeros(1), shares])
    return so.sinkhorn_distance(C, a, b, alpha=alphas), float(exact.value), most


def draw(theme: Theme) -> Figure:
    """Left the distance, right the reg whose plan it is."""
    r, best, most = curve()
    figure = Figure(figsize=(9.6, 3.4))
    left, right = figure.subplots(1, 2)
    blue, orange, green, _ = theme.series
    left.plot(r.alpha, r.value, color=blue, label="distance")
    left.axhline(
        float(r.value[0]), color=orange, linewidth=1, linestyle=DASHES[1], label="independence"
    )
    left.axhline(best, color=green, linewidth=1, linestyle=DASHES[2], label="exact transport")
    left.set(xlabel="alpha, in nats", ylabel="cost")
    left.set_title("From independence to the optimum")
    left.legend(loc="center right", fontsize=9)
    binds = r.active & torch.isfinite(r.reg)
    right.semilogy(r.alpha[binds], r.reg[binds], color=blue)
    right.axvline(most, color=theme.soft, linewidth=1, linestyle=DASHES[1])
    right.text(most, float(r.reg[binds].max()), "the exact plan ", ha="right", va="top", fontsize=9)
    right.set(xlabel="alpha, in nats", ylabel="reg")
    right.set_title("The slope is minus reg")
    for at in (left, right):
        at.grid(True, axis="y")
    figure.subplots_adjust(wspace=0.26)
    return figure


def tables() -> None:
    """Write the distance at a few alpha, and what finding it took beside one solve at its reg."""
    C, a, b = data.histograms()
    rows = []
    for alpha in (0.0, 0.01, 0.1, 0.5, 1.0, 2.0, 3.0, torch.inf):
        r = so.sinkhorn_distance(C, a, b, alpha=alpha)
        reg, one = float(r.reg), "-"
        if 0 < reg < torch.inf:
            one = str(int(so.solve(C, a, b, reg).n_iter))
        work = str(int(r.n_iter)) if one != "-" else "-"
        rows.append([f"{alpha:g}", f"{float(r.value):.9f}", f"{reg:.3g}", work, one])
    header = ["alpha", "distance", "reg", "sweeps", "sweeps of one solve at that reg"]
    table("distance", header, rows)
