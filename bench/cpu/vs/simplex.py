"""Prints how long labels in exact counts take beside POT's network simplex, in one run on one core.

Both values are summed again from the labels, in float64, by code outside the package.
"""

import argparse
from typing import Any

import numpy as np
import ot
import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.cpu.measure import clock, in_turn, save


def log_probs(N: int, K: int, peak: float = 2.5) -> Tensor:
    """Return what a classifier says of samples in 40 clumps: logits of deviation `peak`, biased."""
    g = torch.Generator().manual_seed(0)
    clump = torch.randint(0, 40, (N,), generator=g)
    x = torch.randn(N, 64, generator=g) + 2 * torch.randn(40, 64, generator=g)[clump]
    logits = x @ torch.randn(64, K, generator=g)
    logits = peak * (logits / logits.std() + 0.3 * torch.randn(K, generator=g))
    return torch.log_softmax(logits, -1).double()


def beside_simplex(N: int, K: int, peak: float, runs: int) -> dict[str, Any]:
    """Return one row with the peer, and print it."""
    S = log_probs(N, K, peak)
    cost, a, b = -S.numpy(), np.ones(N), np.full(K, N / K)

    def peer() -> Any:
        return ot.emd(a, b, cost, numItermax=10**9)

    pair = in_turn(lambda: so.balanced_labels(S), peer, runs)
    found, plan = so.balanced_labels(S), peer()
    value = float(S[torch.arange(N), found.labels].sum())
    optimum = float((torch.from_numpy(plan) * S).sum())
    even = bool((found.counts == N // K).all())
    print(
        f"{N} x {K} peak {peak:<4g} ours {pair.ours:7.3f} s  simplex {pair.peer:7.3f} s  "
        f"{pair.ratio:5.1f}x  gap {float(found.gap):.1e}  value - simplex {value - optimum:+.1e}  "
        f"counts equal: {even}",
        flush=True,
    )
    return {
        "case": f"{N} x {K} peak {peak:g}",
        "ours_s": pair.ours,
        "simplex_s": pair.peer,
        "ratio": pair.ratio,
        "gap": float(found.gap),
        "value_minus_simplex": value - optimum,
    }


def alone(N: int, K: int, mode: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return one row without the peer, and print it."""
    S = log_probs(N, K).to(dtype)
    answers = []
    seconds = clock(lambda: answers.append(so.balanced_labels(S, mode=mode)))
    gap = float(answers[0].gap / answers[0].value.abs())
    print(f"{N} x {K} {mode} {dtype}: {seconds:.2f} s, relative gap {gap:.1e}", flush=True)
    return {"case": f"{N} x {K} {mode} {dtype}", "ours_s": seconds, "relative_gap": gap}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each, in turn")
    parser.add_argument("--large", action="store_true", help="100,000 x 300 and 128,000 x 3000 too")


def main(options: argparse.Namespace) -> None:
    """Run the table."""
    torch.set_num_threads(1)
    cases = [(2000, 20, 2.5), (20000, 100, 2.5), (20000, 100, 10.0)]
    rows = [beside_simplex(*case, options.runs) for case in cases]
    rows += [alone(20000, 100, "fast", torch.float64)]
    if options.large:
        rows += [beside_simplex(99900, 300, 2.5, 1)]
        rows += [alone(100_000, 300, mode, torch.float32) for mode in ("exact", "fast")]
        rows += [alone(128_000, 3000, mode, torch.float32) for mode in ("exact", "fast")]
    print("written to", save("vs_simplex", rows).name)
