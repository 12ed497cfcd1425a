"""This package and GeomLoss, which are differentiated by torch."""

import math

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.cpu.gradients.problems import Answer, Problem


# of the blur, from one iteration to the next
SCALING = 0.99


def here(C: Tensor, a: Tensor, b: Tensor, reg: float, rho: float | None) -> Answer:
    """Solve by this package."""
    r = so.solve(C, a, b, reg, unbalanced=rho, tol=1e-13, on_fail="ignore")
    return Answer(r.value, r.plan, r.f, r.g)


def geomloss(p: Problem) -> dict[str, list[Tensor]]:
    """Return the derivatives of GeomLoss's loss and of its potentials; the costs are its own."""
    from geomloss import SamplesLoss  # pyright: ignore[reportMissingImports]

    leaves = [t.clone().requires_grad_() for t in p.args]
    _, x, y, *logits = leaves
    a, b = (z.softmax(-1) for z in logits)
    found = {}
    for name in ("value", "f and g"):
        # its costs are half the squared distance, and its lengths are roots of costs
        loss = SamplesLoss(
            "sinkhorn",
            blur=math.sqrt(p.reg / 2),
            reach=None if p.rho is None else math.sqrt(p.rho / 2),
            scaling=SCALING,
            debias=False,
            potentials=name == "f and g",
            backend="tensorized",
        )
        out = loss(a, x, b, y)
        number = (
            2 * out
            if name == "value"
            else 2 * (out[0].view(-1) @ p.w[0] + out[1].view(-1) @ p.w[1])
        )
        found[name] = list(
            torch.autograd.grad(number, leaves, allow_unused=True, materialize_grads=True)
        )
    return found
