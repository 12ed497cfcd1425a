"""plot(): a plan as a matrix between its marginals, or as lines between clouds."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks, in_short

from .sketch import Sketch


Kind = Literal["matrix", "lines"]
KINDS = get_args(Kind)
# lines that are drawn, the least of them relative to the largest, and how faint they get
_LINES, _LEAST, _FAINT = 1000, 1e-3, 0.05
# colours of matplotlib's cycle: the plan and targets, and sources
_TARGETS, _SOURCES = "C0", "C1"


def drawn(sketch: Sketch, ax: Any, kind: str | None, points: Any) -> Any:
    """Draw a plan on axes, on new ones if there are none, and return them."""
    if kind is not None:
        checks.one_of("kind", kind, KINDS)
    clouds = sketch.clouds if points is None else _given(points, sketch)
    at = None if clouds is None else _placed(*clouds)
    if at is None and (kind == "lines" or points is not None):
        have = "none" if clouds is None else f"points of {clouds[0].shape[1]} dimensions"
        raise ValueError(f"points must have 1 to 3 dimensions to be drawn, got {have}")
    if not all(bool(torch.isfinite(t).all()) for t in sketch.masses):
        raise ValueError("the plan must be numbers to be drawn, got some that are none")
    ax = _axes(ax)
    if at is not None and kind != "matrix":
        _lines(ax, sketch, *at)
    else:
        _matrix(ax, sketch)
    return ax


def _axes(ax: Any) -> Any:
    try:
        # imported here: who draws nothing does not pay for it, and need not have it
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"plot needs matplotlib: pip install matplotlib ({error})") from error
    if ax is None:
        return plt.figure().add_subplot()
    if not hasattr(ax, "add_collection"):
        raise ValueError(f"ax must be matplotlib's Axes, got {in_short(ax)}")
    return ax


def _matrix(ax: Any, sketch: Sketch) -> None:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba

    ink = to_rgba(_TARGETS)
    # no mass is no ink, on any page
    inks = LinearSegmentedColormap.from_list("mass", [(*ink[:3], 0.0), ink])
    n, m = (len(w) for w in sketch.masses)
    extent = (-0.5, m - 0.5, n - 0.5, -0.5)
    mass = sketch.matrix().clamp(min=0).numpy(force=True)
    # the square root lets thin and thick plans share one scale
    norm = PowerNorm(0.5, vmin=0.0, vmax=float(mass.max()) or 1.0)
    ax.imshow(mass, cmap=inks, norm=norm, aspect="auto", extent=extent, interpolation="nearest")
    ax.set(xlabel="target", ylabel="source")
    top = ax.inset_axes([0, 1.02, 1, 0.16], sharex=ax)
    side = ax.inset_axes([1.02, 0, 0.16, 1], sharey=ax)
    for of, held, asked, colour in (
        (side, sketch.masses[0], sketch.weights[0], _SOURCES),
        (top, sketch.masses[1], sketch.weights[1], _TARGETS),
    ):
        across = of is side
        place = range(len(held))
        fill = of.fill_betweenx if across else of.fill_between
        fill(place, _shown(held), step="mid", color=colour, alpha=0.6, linewidth=0)
        line = [_shown(asked), place] if across else [place, _shown(asked)]
        of.plot(*line, color=colour, linewidth=1)
        of.axis("off")


def _lines(ax: Any, sketch: Sketch, x: Tensor, y: Tensor) -> None:
    from matplotlib.collections import LineCollection

    i, j, mass = sketch.entries(_LINES)
    top = mass.amax() if len(mass) else 1.0
    few = mass > _LEAST * top
    i, j, share = i[few], j[few], (mass[few] / top).clamp(min=_FAINT)
    ends: Any = torch.stack([x[i], y[j]], 1).numpy(force=True)
    alpha = _shown(share**0.7)
    # where no mass moves there are points alone
    if len(ends):
        ax.add_collection(LineCollection(ends, colors="0.5", alpha=alpha, linewidths=0.8))
    sides = (("source", x, 0, _SOURCES, "o"), ("target", y, 1, _TARGETS, "s"))
    for name, points, side, colour, marker in sides:
        held = sketch.masses[side]
        # area is what a point holds
        size = 24 * held / held.mean().clamp(min=torch.finfo(held.dtype).tiny)
        at = points.numpy(force=True).T
        ax.scatter(*at, s=_shown(size), c=colour, marker=marker, linewidths=0, zorder=3, label=name)
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend()


def _given(points: Any, sketch: Sketch) -> tuple[Tensor, Tensor]:
    """Return the points that are given, one for each that holds mass."""
    if not isinstance(points, (tuple, list)) or len(points) != 2:
        raise ValueError(f"points must be a pair (x, y), got {in_short(points)}")
    x, y = (checks.tensor("points", t, whole=True).to(sketch.masses[0].device) for t in points)
    n, m = map(len, sketch.masses)
    if (x.ndim, y.ndim) != (2, 2) or (len(x), len(y)) != (n, m) or x.shape[1] != y.shape[1]:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"points must have shapes ({n}, d) and ({m}, d), got {shapes}")
    return x, y.to(x.dtype)


def _placed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return where points are on a page; None if their dimensions are too many for it."""
    d = x.shape[-1]
    if d == 1:
        # sources above, targets below
        apart = (torch.cat([x, y]).amax() - torch.cat([x, y]).amin()) / 4
        return torch.cat([x, 0 * x + apart], 1), torch.cat([y, 0 * y], 1)
    if d == 3:
        # on the plane in which they differ most
        both = torch.cat([x, y]).double()
        middle = both.mean(0)
        _, _, axes = torch.linalg.svd(both - middle, full_matrices=False)
        return (x.double() - middle) @ axes[:2].mT, (y.double() - middle) @ axes[:2].mT
    return (x, y) if d == 2 else None


def _shown(t: Tensor) -> Any:
    return t.clamp(min=0).numpy(force=True)
