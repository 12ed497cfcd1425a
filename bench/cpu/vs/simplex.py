"""Labels in exact counts beside POT's network simplex: random scores, and samples in clumps.

An error is that of the value beside the simplex's, summed again from the labels in float64; labels
whose counts are not what was asked for have none.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import Entrant, race
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_simplex"
_ERROR = 1e-9
# samples, labels, and the deviation of clumped logits; none for random scores
CASES = [
    (2000, 20, 2.5),
    (2000, 20, None),
    (5000, 50, 2.5),
    (20_000, 100, 2.5),
    (20_000, 100, 10.0),
    (20_000, 100, None),
    (99_900, 300, 2.5),
]


def scores(N: int, K: int, peak: float | None) -> Tensor:
    """Return what a classifier says of samples in 40 clumps, biased; or random numbers."""
    g = torch.Generator().manual_seed(0)
    if peak is None:
        return torch.randn(N, K, generator=g, dtype=torch.float64)
    clump = torch.randint(0, 40, (N,), generator=g)
    x = torch.randn(N, 64, generator=g) + 2 * torch.randn(40, 64, generator=g)[clump]
    logits = x @ torch.randn(64, K, generator=g)
    logits = peak * (logits / logits.std() + 0.3 * torch.randn(K, generator=g))
    return torch.log_softmax(logits, -1).double()


def cell(case: str, N: int, K: int, peak: float | None) -> Row | None:
    """Return one row."""
    import ot

    S = scores(N, K, peak)
    cost, a, b = -S.numpy(), np.ones(N), np.full(K, N / K)
    plan = ot.emd(a, b, cost, numItermax=10**9)
    best = float((plan * cost).sum())

    def error(labels: Any) -> float:
        even = bool((torch.as_tensor(labels).bincount(minlength=K) == N // K).all())
        value = float(cost[np.arange(N), labels].sum())
        return abs(value / best - 1) if even else float("inf")

    ours = Entrant("sinkhorn_ot", lambda _: lambda: so.balanced_labels(S).labels, error)
    peer = Entrant(
        "simplex",
        lambda _: lambda: ot.emd(a, b, cost, numItermax=10**9).argmax(1),
        error,
        (0,),
        "ot",
    )
    return race((FAMILY, case), ours, [peer], _ERROR)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for N, K, peak in CASES:
        case = f"{N}x{K} {'random' if peak is None else f'clumps of peak {peak:g}'}"
        yield Cell(case, partial(cell, case, N, K, peak), N > 50_000)


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
