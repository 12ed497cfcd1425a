"""Which tiles of the matrix of two clouds count, and what share of the pairs that is by reg."""

import math
from functools import cache

import torch
from matplotlib.figure import Figure
from style import DASHES, MARKS, Theme
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot.sweeps.portable.near.fewer import tree
from sinkhorn_ot.sweeps.portable.near.live import Live


POINTS = 4000
SHOWN = (1e-2, 1e-4)
REGS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
# beside its row's sum, the logarithm of what may be left out
LOST = math.log(1e-11)


@cache
def tiles(d: int, reg: float) -> tuple[Tensor, float]:
    """Return which pairs of blocks count at about the solution, and their share of all pairs."""
    generator = torch.Generator().manual_seed(d)
    x, y = (torch.rand(POINTS, d, generator=generator, dtype=torch.float64) for _ in range(2))
    cost = so.PointCloud(x[None], y[None])
    r = so.solve(so.PointCloud(x, y), reg=reg, tol=1e-2, on_fail="ignore")
    rows, columns = tree(cost, 0), tree(cost, 1)
    u, v = (t / reg - math.log(POINTS) for t in (r.f[rows.order], r.g[columns.order]))
    live = torch.zeros(len(rows), len(columns), dtype=torch.bool)
    for part in Live((rows, columns), reg, LOST).parts(u, v):
        live[rows.block[part.rows.start], part.near] = True
    pairs = rows.sizes[:, None] * columns.sizes
    return live, float((live * pairs).sum() / pairs.sum())


def draw(theme: Theme) -> Figure:
    """Two matrices of tiles, and shares."""
    figure = Figure(figsize=(9.6, 3.2))
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    for at, reg in zip(panels, SHOWN, strict=False):
        live, share = tiles(2, reg)
        at.imshow(live.double(), cmap=theme.mass, vmin=0, vmax=2, interpolation="nearest")
        at.set_title(f"reg {reg:g}: {share:.1%} of pairs")
        at.set(xticks=[], yticks=[])
    for k, d in enumerate((2, 3)):
        shares = [tiles(d, reg)[1] for reg in REGS]
        panels[2].loglog(
            REGS, shares, color=theme.series[k], marker=MARKS[k], ls=DASHES[k], label=f"d = {d}"
        )
    panels[2].set(xlabel="reg / squared side", title="Share of pairs that count")
    panels[2].legend(frameon=False)
    figure.tight_layout()
    return figure
