"""The Sinkhorn divergence and its gradient beside GeomLoss, which anneals once, to one error.

The truth is ours at 1e-12 in float64. The error is that of the value or of the gradient by points,
relative to the largest entry, whichever is more: GeomLoss gets the coarsest schedule that arrives.
What its default schedule takes, and how far off it is, is a case of its own.
"""

import argparse
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import Entrant, Run, race
from bench.ratios.row import Row
from sinkhorn_ot.compat.geomloss import SamplesLoss


__all__ = ["add_options", "main"]

FAMILY = "vs_divergence"
SIZES, BLURS = (200, 500, 1000, 2000), (0.3, 0.05)
POWERS: tuple[Literal[1, 2], ...] = (1, 2)
ERROR = 1e-2
# our tolerances, and by how much GeomLoss's scaling is below one
_TOLS, _SCALINGS = (1e-2, 1e-3, 1e-4), (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
Answer = tuple[Tensor, Tensor]


def cell(case: str, n: int, blur: float, p: Literal[1, 2], stops: tuple[float, ...]) -> Row | None:
    """Return one row: clouds in the unit cube, one of them moved by a fifth, in float32."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(n, 3, generator=rng), torch.rand(n, 3, generator=rng) + 0.2
    true = told(SamplesLoss(p=p, blur=blur, tol=1e-12), x.double(), y.double())

    def ours(stop: float) -> Run:
        loss = SamplesLoss(p=p, blur=blur, tol=stop)
        return lambda: told(loss, x, y)

    def theirs(stop: float) -> Run:
        import geomloss  # pyright: ignore[reportMissingImports]

        loss = geomloss.SamplesLoss("sinkhorn", p=p, blur=blur, scaling=1 - stop)
        return lambda: told(loss, x, y)

    # who is asked for no error is judged by none
    error = ERROR if len(stops) > 1 else float("inf")
    peer = Entrant("GeomLoss", theirs, partial(off, true), stops, "geomloss")
    return race((FAMILY, case), Entrant("ours", ours, partial(off, true), _TOLS), [peer], error)


def told(loss: Any, x: Tensor, y: Tensor) -> Answer:
    """Return a loss and its gradient by the points of one cloud."""
    # GeomLoss leaves gradients off where it is stopped
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        value = loss(x, y)
        (grad,) = torch.autograd.grad(value, x)
    return value.detach(), grad


def off(true: Answer, found: Answer) -> float:
    """Return the larger of both relative errors."""
    return max(
        float((t - s.double()).abs().max() / t.abs().max())
        for t, s in zip(true, found, strict=True)
    )


def cells() -> Iterator[Cell]:
    """Yield every case."""
    kinds = (("", _SCALINGS), (" its default", _SCALINGS[:1]))
    for n, blur, p, (kind, stops) in itertools.product(SIZES, BLURS, POWERS, kinds):
        case = f"{n} points p {p} blur {blur:g}{kind}"
        yield Cell(case, partial(cell, case, n, blur, p, stops))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
