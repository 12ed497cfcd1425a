"""A layer of 20 normalisations, forward and back, beside loops of plain PyTorch with autograd.

One peer scales by logarithms, as the layer does; the other one divides, which is quicker and loses
what underflows. An error is the largest of the gradient, relative to that in float64.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import Entrant, race
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_layers"
N_ITER = 20
SHAPES = (
    (1, 4, 4), (64, 4, 4), (1024, 4, 4), (65536, 4, 4), (4096, 8, 8), (1024, 16, 16), (1, 64, 64),
    (64, 64, 64), (1, 512, 512), (1, 2048, 2048),
)  # fmt: skip
# standard deviation of the logits
SCALES = {"small": 1.0, "large": 30.0}
_ERROR = 1e-4
Layer = Callable[[Tensor], Tensor]


def by_logs(x: Tensor) -> Tensor:
    """Return the matrix."""
    for _ in range(N_ITER):
        x = x - torch.logsumexp(x, -1, keepdim=True)
        x = x - torch.logsumexp(x, -2, keepdim=True)
    return x.exp()


def by_division(x: Tensor) -> Tensor:
    """Return the matrix, if nothing underflows."""
    P = (x - x.amax(-1, keepdim=True)).exp()
    for _ in range(N_ITER):
        P = P / P.sum(-1, keepdim=True)
        P = P / P.sum(-2, keepdim=True)
    return P


def gradient(act: Layer, x: Tensor, G: Tensor) -> Tensor:
    """Return derivatives to the logits."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(act(x), x, G)[0]


def cell(case: str, shape: tuple[int, ...], scale: float) -> Row | None:
    """Return one row."""
    random = torch.Generator().manual_seed(0)
    x, G = (torch.randn(shape, generator=random) for _ in range(2))
    x *= scale
    true = gradient(by_logs, x.double(), G.double())

    def error(found: Tensor) -> float:
        off = float((found - true).abs().max() / true.abs().max())
        return off if off == off else float("inf")

    def entrant(name: str, act: Layer) -> Entrant:
        return Entrant(name, lambda stop: partial(gradient, act, x, G), error)

    peers = [entrant("logarithms", by_logs), entrant("division", by_division)]
    return race((FAMILY, case), entrant("sinkhorn_ot", so.normalize), peers, _ERROR)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for shape in SHAPES:
        for name, scale in SCALES.items():
            case = f"{shape[0]} of {shape[1]}x{shape[2]} {name} logits"
            yield Cell(case, partial(cell, case, shape, scale))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
