"""SeLa's labels beside the published loop: from a network's outputs to the labels.

The loop is written again from its formula: Q = p^lambda in float64, then r and c in turn until
sum |c / c' - 1| <= 0.1, with the cap that it does not have. Each is handed the outputs in the form
its method takes. An error is the share of labels that are not those of the solution to 1e-9.
"""

import argparse
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import Entrant, race
from bench.ratios.row import Row


__all__ = ["add_options", "main"]

FAMILY = "vs_sela"
LAMB, CAP = 25.0, 3000
# standard deviation of the logits: an untrained head, a trained one, a very sure one
SCALES = {"flat": 0.1, "young": 0.3, "trained": 1.0, "peaked": 3.0}
SIZES = [(5000, 128), (50_000, 128), (50_000, 1000)]
# labels that may differ: ties of a loop that is stopped early
_ERROR = 0.01


def log_probs(N: int, K: int, scale: float) -> Tensor:
    """Return log-probabilities of Gaussian logits with labels of unequal size, float32."""
    rng = torch.Generator().manual_seed(0)
    bias = 0.3 * torch.randn(K, generator=rng)
    return (scale * (torch.randn(N, K, generator=rng) + bias)).log_softmax(-1)


def published(p: Tensor) -> Tensor:
    """Return labels."""
    N, K = p.shape
    Q = p.pow(LAMB)
    c, r = p.new_full((N,), 1.0 / N), p.new_ones(K)
    for _ in range(CAP):
        r = (1.0 / K) / torch.mv(Q.t(), c)
        fresh = (1.0 / N) / torch.mv(Q, r)
        off = float((c / fresh - 1).abs().sum())
        c = fresh
        if off <= 0.1:
            break
    return (Q * r).argmax(-1)


def cell(case: str, scale: float, N: int, K: int) -> Row | None:
    """Return one row."""
    S = log_probs(N, K, scale)
    p = S.double().exp()
    true = so.sela_labels(S.double(), tol=1e-9, max_iter=100_000).labels

    def error(labels: Tensor) -> float:
        return float((labels != true).double().mean())

    ours = Entrant("sinkhorn_ot", lambda _: lambda: so.sela_labels(S).labels, error)
    peer = Entrant("loop", lambda _: lambda: published(p), error, package="torch")
    return race((FAMILY, case), ours, [peer], _ERROR)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for N, K in SIZES:
        for name, scale in SCALES.items():
            yield Cell(f"{N}x{K} {name}", partial(cell, f"{N}x{K} {name}", scale, N, K))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
