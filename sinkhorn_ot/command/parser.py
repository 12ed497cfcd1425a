"""The arguments of the command line."""

import argparse
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Return what reads them."""
    top = argparse.ArgumentParser(
        prog="python -m sinkhorn_ot",
        description="Optimal transport and labels of files.",
        epilog="Ends with 0 where the tolerance was reached, 2 for bad input, 3 where sweeps "
        "or seconds ran out, 4 where the error stalled, 5 where no plan exists, 6 where numbers "
        "left their range, 130 where it was interrupted.",
    )
    acts = top.add_subparsers(dest="act", required=True, metavar="{solve,labels,demo}")
    _solve(acts.add_parser("solve", help="transport between the points of a cost, or two clouds"))
    _labels(acts.add_parser("labels", help="labels in equal or in given shares"))
    acts.add_parser("demo", help="the main job on real digits, with figures", add_help=False)
    return top


def _solve(p: argparse.ArgumentParser) -> None:
    add = p.add_argument
    add("cost", nargs="?", type=Path, help="costs, .npy of shape (n, m) or (batch, n, m)")
    add("--points", nargs=2, type=Path, metavar=("X", "Y"), help="two clouds instead, .npy")
    add("--metric", default="sqeuclidean", help="between the clouds (default: %(default)s)")
    add("--a", type=Path, help="source weights, .npy of shape (n,) (default: equal)")
    add("--b", type=Path, help="target weights, .npy of shape (m,) (default: equal)")
    add("--reg", type=_positive, help="regularisation in units of the cost")
    add("--exact", action="store_true", help="an exact plan, with its proof, without reg")
    add("--seconds", type=_positive, help="that an exact plan may take, beyond the matrix")
    add("--unbalanced", type=float, help="KL penalty on both marginals instead of exact ones")
    add("--method", default="auto", choices=("auto", "sinkhorn", "newton"))
    add("--stream", action="store_true", help="read the costs at each pass, and never hold them")
    add("--plan", action="store_true", help="write the plan too, n m numbers")
    _common(p, "potentials and values, .npz", most=10_000)


def _labels(p: argparse.ArgumentParser) -> None:
    add = p.add_argument
    add("logits", type=Path, help="logits or log-probabilities, .npy of (N, K) or (heads, N, K)")
    add("--method", default="sela", choices=("sela", "swav"))
    add("--lamb", type=_positive, default=25.0, help="SeLa's lambda (default: %(default)s)")
    add("--counts", help="exact counts: 'balanced', or .npy of shape (K,), int64; in memory")
    add("--marginal", type=Path, help="share of each label, .npy of shape (K,) (default: equal)")
    _common(p, "labels, .npy, .npz with what else is known, or .parquet", most=2_000)


def _common(p: argparse.ArgumentParser, written: str, most: int) -> None:
    add = p.add_argument
    add("--tol", type=_positive, help="relative marginal error to reach")
    add("--max-iter", type=_whole, help=f"sweeps allowed (default: {most})")
    add("--dtype", choices=("float32", "float64"), help="to compute in (default: as stored)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--out", type=Path, help=f"where to write: {written}")
    add("--checkpoint", type=Path, help="where to keep where it stands; the same call goes on")
    add("--progress", action="store_true", help="show a progress bar")
    add("--json", action="store_true", help="print the summary as one line of JSON")
    add("--threads", type=_whole, help="threads of a process (default: torch's)")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


# what argparse calls them where a text is none
_positive.__name__, _whole.__name__ = "number above zero", "whole number above zero"
