"""Prints how far GeomLoss is from the solution it anneals to, by its schedule: value and gradient.

Clouds of a hundred points with weights in three dimensions, in float64, the worst of ten; the
truth is ours to 1e-12. Fails if a slower schedule does not come nearer. Beside a reach GeomLoss's
gradient is a known share of the derivative of its value, which is taken out of it.
"""

import argparse
import itertools
from typing import Any

import torch
from torch import Tensor

from bench.cpu.measure import save
from sinkhorn_ot.compat.geomloss import SamplesLoss


SCALINGS = (0.5, 0.9, 0.99, 0.999)
POINTS, BLUR, REACH, PROBLEMS = 100, 0.1, 0.5, 10


def problem(seed: int, masses: float) -> tuple[Tensor, ...]:
    """Return weights and points of both clouds, one of them moved by a fifth."""
    rng = torch.Generator().manual_seed(seed)
    kind: dict[str, Any] = {"generator": rng, "dtype": torch.float64}
    a, b = (torch.rand(POINTS, **kind) + 0.1 for _ in range(2))
    x, y = (torch.rand(POINTS, 3, **kind) for _ in range(2))
    return a / a.sum(), x, masses * b / b.sum(), y + 0.2


def told(loss: Any, a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return a loss and its gradient by points."""
    x = x.clone().requires_grad_()
    value = loss(a, x, b, y)
    (grad,) = torch.autograd.grad(value, x)
    return value.detach(), grad


def apart(p: int, reach: float | None, debias: bool, scaling: float) -> dict[str, Any]:
    """Return the worst relative differences of one schedule."""
    from geomloss import SamplesLoss as Theirs  # pyright: ignore[reportMissingImports]

    options: dict[str, Any] = {"p": p, "blur": BLUR, "reach": reach, "debias": debias}
    eps, rho = BLUR**p, float("inf") if reach is None else reach**p
    share = 1.0 if reach is None else (rho + eps / 2) / (rho + eps)
    worst = {"value": 0.0, "gradient": 0.0}
    for seed in range(PROBLEMS):
        given = problem(seed, 1.0 if reach is None else 1.3)
        true = told(SamplesLoss(**options, tol=1e-12), *given)
        found = told(Theirs(**options, scaling=scaling), *given)
        off = (found[0] - true[0]).norm() / true[0].norm()
        turned = (found[1] / share - true[1]).norm() / true[1].norm()
        worst = {
            "value": max(worst["value"], float(off)),
            "gradient": max(worst["gradient"], float(turned)),
        }
    return {"p": p, "reach": reach, "debias": debias, "scaling": scaling, **worst}


def main(_: argparse.Namespace) -> int:
    """Print and save every row; return 1 if a slower schedule is no nearer."""
    torch.set_num_threads(1)
    rows, failed = [], 0
    for p, reach, debias in itertools.product((1, 2), (None, REACH), (True, False)):
        part = [apart(p, reach, debias, scaling) for scaling in SCALINGS]
        failed += part[-1]["gradient"] > part[0]["gradient"] or part[-1]["value"] > part[0]["value"]
        for row in part:
            print(row, flush=True)
        rows += part
    print("written to", save("annealed", rows).name)
    return int(failed > 0)
