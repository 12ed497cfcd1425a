"""Points that follow a value's derivative, and how exact derivatives are and what they cost."""

import json
import math
from typing import Any

import torch
from grid import FILE as GRID
from matplotlib.figure import Figure
from style import Theme, table
from torch import Tensor

import sinkhorn_ot as so


RESULTS = GRID.parent
STEPS = (0, 2, 5, 30)
REG = 0.01
# tolerances at which a solve is stopped
STOPS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)


def draw(theme: Theme) -> Figure:
    """A cloud that flows to a ring, in a few frames."""
    y = _ring(80)
    figure = Figure(figsize=(9.6, 2.5))
    panels = figure.subplots(1, len(STEPS), sharex=True, sharey=True)
    for at, (step, x, pull, value) in zip(panels, _flow(y), strict=True):
        at.scatter(*y.T, s=9, color=theme.series[0], marker="s", linewidths=0)
        at.quiver(
            *x.T, *pull.T, color=theme.soft, angles="xy", scale_units="xy", scale=1, width=0.004
        )
        at.scatter(*x.T, s=9, color=theme.series[1], linewidths=0, zorder=3)
        at.set_title(f"step {step}: {value:.3f}")
        at.set(xticks=[], yticks=[], aspect="equal", xlim=(-1.45, 1.45), ylim=(-1.45, 1.45))
        for spine in at.spines.values():
            spine.set_visible(False)
    figure.subplots_adjust(wspace=0.03)
    return figure


def _ring(n: int) -> Tensor:
    turn = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    return torch.stack([turn.cos(), turn.sin()], -1) * (1 + 0.15 * (5 * turn).cos())[:, None]


def _flow(y: Tensor) -> list[tuple[int, Tensor, Tensor, float]]:
    """Return frames: a step, points, where their next step leads, and the value."""
    n, frames = 50, []
    x = 0.25 * torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for step in range(max(STEPS) + 1):
        x.requires_grad_()
        value = so.solve(so.PointCloud(x, y), reg=REG).value
        # a weight of 1 / n a point; half of the way to where its mass goes would be 1 / 4
        pull = -0.15 * n * torch.autograd.grad(value, x)[0]
        x = x.detach()
        if step in STEPS:
            frames.append((step, x, pull, float(value.detach())))
        x = x + pull
    return frames


def tables() -> None:
    """Write what was measured, and what stopping early does."""
    _compared(json.loads((RESULTS / "gradients.json").read_text())["rows"])
    _cost(json.loads((RESULTS / "gradients_cost.json").read_text())["rows"])
    _stopped()


def _compared(rows: list[dict[str, Any]]) -> None:
    header = ["derivative of", "by", "package", "median", "worst", "above 1e-8", "worst of terms"]
    # costs stand for points, and a for b: the file has all
    shown = [
        [r["number"], r["argument"], f"{r['peer']}", *_errors(r)]
        for r in sorted(rows, key=lambda r: (r["number"], r["argument"]))
        if r["argument"] in ("cost", "x", "a")
    ]
    table("gradients", header, shown)


def _errors(r: dict[str, Any]) -> list[str]:
    if not r["answered"]:
        return ["none", "", "", ""]
    short = r["problems"] - r["answered"]
    failed = f", {short} failed" if short else ""
    numbers = [f"{r[k]:.0e}" for k in ("median", "worst")]
    return [*numbers, f"{r['above']} of {r['answered']}{failed}", f"{r['worst_of_terms']:.0e}"]


def _cost(rows: list[dict[str, Any]]) -> None:
    header = ["cost", "points", "sweeps", "solve, ms", "value", "plan", "f", "memory, MB"]
    acts = ("solve", "value", "plan", "f")
    shown = []
    for r in rows:
        took = [f"{1e3 * r['seconds'][act]:.1f}" for act in acts]
        held = " / ".join(f"{r['megabytes'][act]:.0f}" for act in acts) if r["megabytes"] else ""
        shown.append([r["kind"], str(r["n"]), str(r["sweeps"]), *took, held])
    table("gradients_cost", header, shown)


def _stopped() -> None:
    random = torch.Generator().manual_seed(0)
    x, y, W = (
        torch.randn(*s, generator=random, dtype=torch.float64) for s in ((60, 2), (50, 2), (60, 50))
    )
    C = torch.cdist(x, y).square()
    C /= C.max()

    def grads(tol: float) -> tuple[float, list[Tensor]]:
        leaf = C.clone().requires_grad_()
        r = so.solve(leaf, reg=0.02, tol=tol, on_fail="ignore", method=so.Sinkhorn(so.Plain()))
        numbers = r.value, (r.plan * W).sum()
        return float(r.marginal_error), [torch.autograd.grad(t, leaf)[0] for t in numbers]

    _, truth = grads(1e-13)
    shown = []
    for tol in STOPS:
        error, found = grads(tol)
        off = [
            float((s - t).abs().sum() / t.abs().sum()) for s, t in zip(found, truth, strict=True)
        ]
        shown.append([f"{tol:g}", f"{error:.1e}", *(f"{x:.1e}" for x in off)])
    table("gradients_stopped", ["tol", "marginal error", "value's", "plan's"], shown)
