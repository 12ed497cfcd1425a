"""Prints how long SeLa's labels of 50000 samples take beside the published loop, on one core.

The loop is written again from its formula: Q = p^lambda in float64, then r and c in turn until
sum |c / c' - 1| <= 0.1, with the cap that it does not have. Both clocks run from the network's
outputs, each in the form its method takes, to the labels.
"""

import argparse
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.cpu.measure import in_turn, save


LAMB = 25.0
# standard deviation of the logits: an untrained head, a trained one, a very sure one
SCALES = {"flat": 0.1, "young": 0.3, "trained": 1.0, "peaked": 3.0}


def log_probs(N: int, K: int, scale: float) -> Tensor:
    """Return log-probabilities of Gaussian logits with labels of unequal size, float32."""
    rng = torch.Generator().manual_seed(0)
    bias = 0.3 * torch.randn(K, generator=rng)
    return (scale * (torch.randn(N, K, generator=rng) + bias)).log_softmax(-1)


def published(p: Tensor, most: int) -> tuple[Tensor, int, float]:
    """Return labels, iterations, and the sum the loop stops at."""
    N, K = p.shape
    Q = p.pow(LAMB)
    c, r = p.new_full((N,), 1.0 / N), p.new_ones(K)
    off, count = float("inf"), 0
    while off > 0.1 and count < most:
        r = (1.0 / K) / torch.mv(Q.t(), c)
        fresh = (1.0 / N) / torch.mv(Q, r)
        off = float((c / fresh - 1).abs().sum())
        c, count = fresh, count + 1
    return (Q * r).argmax(-1), count, off


def row(name: str, scale: float, N: int, K: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return one row, and print it."""
    S = log_probs(N, K, scale)
    p = S.double().exp()
    pair = in_turn(lambda: so.sela_labels(S), lambda: published(p, options.cap), options.runs)
    ours, (labels, count, off) = so.sela_labels(S), published(p, options.cap)
    same = float((ours.labels == labels).double().mean())
    print(
        f"{name:8s} {N} x {K}  ours {pair.ours:7.3f} s {int(ours.n_iter):3d} sweeps  "
        f"loop {pair.peer:7.3f} s {count:5d} iterations  {pair.ratio:6.1f}x   "
        f"same labels {100 * same:.3f} %",
        flush=True,
    )
    return {
        "case": name,
        "logits_std": scale,
        "N": N,
        "K": K,
        "ours_s": pair.ours,
        "loop_s": pair.peer,
        "ratio": pair.ratio,
        "ours_sweeps": int(ours.n_iter),
        "ours_error": float(ours.marginal_error),
        "loop_iterations": count,
        "loop_converged": off <= 0.1,
        "same_labels": same,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each, in turn")
    parser.add_argument("--cap", type=int, default=3000, help="iterations the loop is allowed")
    parser.add_argument("--cases", nargs="*", default=list(SCALES), choices=list(SCALES))


def main(options: argparse.Namespace) -> None:
    """Run the table."""
    torch.set_num_threads(1)
    save("vs_sela", [row(name, SCALES[name], 50_000, 128, options) for name in options.cases])
