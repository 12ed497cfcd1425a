"""Codes beside the loops their papers publish, few iterations and many.

The loops are written here from their formulas, in the layout the papers use, in float32 and where
that overflows in float64. Errors are total variations per code against the same formulas in
float64 and log domain.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import Entrant, race
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_published"
_ERROR = 1e-3


class Codes(NamedTuple):
    """Rows, prototypes, rows kept, and how codes are made of them."""

    B: int
    K: int
    last: int
    eps: float = 0.05
    n_iter: int = 3

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"swav {self.B}x{self.K} last {self.last} eps {self.eps:g} iterations {self.n_iter}"


# batch and queue of the paper, its batch on fewer ranks, teachers, small shapes, balanced codebooks
CASES = [
    Codes(4096, 3000, 4096),
    Codes(4096, 3000, 256),
    Codes(1024, 3000, 1024),
    Codes(64, 3000, 64),
    Codes(256, 64, 256),
    Codes(1024, 256, 1024),
    Codes(64, 3000, 64, 0.05, 10),
    Codes(256, 64, 256, 0.003, 50),
    Codes(64, 3000, 64, 0.003, 50),
    Codes(1024, 256, 1024, 0.003, 50),
    Codes(1024, 256, 1024, 0.05, 50),
    Codes(4096, 1024, 4096, 0.01, 20),
]


def published_swav(scores: Tensor, eps: float, n_iter: int) -> Tensor:
    """Return SwAV's codes the way they are published: exponentiate, then divide in turn."""
    Q = torch.exp(scores / eps).t()
    K, B = Q.shape
    Q /= Q.sum()
    for _ in range(n_iter):
        Q /= Q.sum(dim=1, keepdim=True)
        Q /= K
        Q /= Q.sum(dim=0, keepdim=True)
        Q /= B
    return (Q * B).t()


def truth(scores: Tensor, eps: float, n_iter: int) -> Tensor:
    """Return the same in float64 and log domain."""
    S = scores.double() / eps
    f, g = torch.zeros_like(S[:1]), torch.zeros_like(S[:, :1])
    for _ in range(n_iter):
        f = -torch.logsumexp(S + g, 0, keepdim=True)
        g = -torch.logsumexp(S + f, 1, keepdim=True)
    return (S + f + g).exp()


def variation(codes: Tensor, oracle: Tensor) -> float:
    """Return the largest total variation of a code."""
    return float((codes.double() - oracle).abs().sum(-1).max() / 2)


def cell(codes: Codes) -> Row | None:
    """Return one row: cosines of random features, codes of the last rows."""
    B, K, last, eps, n_iter = codes
    rng = torch.Generator().manual_seed(0)
    z, c = (torch.nn.functional.normalize(torch.randn(n, 128, generator=rng)) for n in (B, K))
    S = z @ c.t()
    oracle = truth(S, eps, n_iter)[-last:]

    def error(found: Tensor) -> float:
        off = variation(found, oracle)
        return off if off == off else float("inf")

    def entrant(name: str, kind: torch.dtype) -> Entrant:
        run = lambda _: lambda: published_swav(S.to(kind), eps, n_iter)[-last:]  # noqa: E731
        return Entrant(name, run, error, package="torch")

    run = lambda _: lambda: so.swav_codes(S, eps=eps, n_iter=n_iter, last=last)  # noqa: E731
    peers = [entrant("loop", torch.float32), entrant("float64 loop", torch.float64)]
    return race((FAMILY, codes.name), Entrant("sinkhorn_ot", run, error), peers, _ERROR)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for codes in CASES:
        yield Cell(codes.name, partial(cell, codes))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
