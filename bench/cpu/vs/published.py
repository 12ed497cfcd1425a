"""Prints how long codes take beside the loops their papers publish, in one run on one core.

The loops are written here from their formulas, in the dtype and layout the papers use. Errors are
total variations per code against the same formulas in float64 and log domain.
"""

import argparse
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.cpu.measure import in_turn, save


# rows, prototypes, rows kept: batch and queue of the paper, its batch on fewer ranks, and teachers
SHAPES = [(4096, 3000, 4096), (4096, 3000, 256), (1024, 3000, 1024), (64, 3000, 64)]


def published_swav(scores: Tensor, eps: float = 0.05, n_iter: int = 3) -> Tensor:
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


def truth(scores: Tensor, eps: float = 0.05, n_iter: int = 3) -> Tensor:
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


def swav(B: int, K: int, last: int, runs: int) -> dict[str, Any]:
    """Return one row: cosines of random features, codes of the last rows."""
    torch.manual_seed(0)
    z, C = (torch.nn.functional.normalize(torch.randn(n, 128)) for n in (B, K))
    S = z @ C.t()
    pair = in_turn(lambda: so.swav_codes(S, last=last), lambda: published_swav(S)[-last:], runs)
    oracle = truth(S)[-last:]
    errors = (variation(f(S)[-last:], oracle) for f in (so.swav_codes, published_swav))
    return row("swav_codes", f"{B}x{K}, last {last}", pair, *errors)


def row(call: str, name: str, pair: Any, error: float, peer_error: float) -> dict[str, Any]:
    """Return the row, and print it."""
    print(
        f"{call:12s} {name:22s} ours {pair.ours:8.4f} s  published {pair.peer:8.4f} s  "
        f"{pair.ratio:6.1f}x   errors {error:.1e} {peer_error:.1e}",
        flush=True,
    )
    return {
        "call": call,
        "case": name,
        "ours_s": pair.ours,
        "published_s": pair.peer,
        "ratio": pair.ratio,
        "ours_error": error,
        "published_error": peer_error,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each, in turn")


def main(options: argparse.Namespace) -> None:
    """Run the table."""
    torch.set_num_threads(1)
    rows = [swav(*shape, options.runs) for shape in SHAPES]
    print("written to", save("vs_published", rows))
