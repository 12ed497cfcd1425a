"""Compares derivatives of this package, OTT-JAX and GeomLoss with a dense system's, in float64.

Random problems, every third one relaxed. The value, a random sum of the plan's entries and one of
the potentials are differentiated by costs, points and weights; weights are softmaxes of logits, so
that every direction is allowed. An error is the largest difference of an entry from the judge's,
relative to its largest entry, and beside it relative to the largest term that was summed: of sharp
plans a derivative may be a rest of 1e-7 of its terms, which float64 knows to eight digits. Prints
median and worst of each, and keeps them; fails if one of this package is above 1e-8 of its terms.
"""

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.cpu.gradients import dense, ott, torches
from bench.cpu.gradients.problems import ARGUMENTS, NUMBERS, Problem, draw, gradients
from bench.cpu.measure import save


LIMIT = 1e-8
PROBLEMS = 100
HERE = "sinkhorn_ot"


class Error(NamedTuple):
    """The largest difference of an entry.

    Attributes:
        plain: Relative to the largest entry of the derivative.
        of_terms: Relative to the largest of what was summed to it.
    """

    plain: float
    of_terms: float


Found = dict[str, list[Tensor]]
PEERS: dict[str, tuple[str, Callable[[Problem], Found]]] = {
    HERE: ("sinkhorn-ot", partial(gradients, solve=torches.here)),
    "OTT": ("ott-jax", partial(ott.gradients, tight=False)),
    "OTT, tight": ("ott-jax", partial(ott.gradients, tight=True)),
    "GeomLoss": ("geomloss", torches.geomloss),
}
MODULES = {"sinkhorn-ot": "sinkhorn_ot", "ott-jax": "ott", "geomloss": "geomloss"}


def compared(problems: int) -> list[dict[str, Any]]:
    """Return a row for each peer, number and argument."""
    errors: dict[tuple[str, str, str], list[Error | None]] = {}
    peers = {name: act for name, (package, act) in PEERS.items() if find_spec(MODULES[package])}
    for k in range(problems):
        p = draw(k)
        truth = dense.gradients(p)
        for peer, act in peers.items():
            try:
                found = act(p)
            except Exception as error:  # noqa: BLE001
                # what a peer raises is its answer
                if peer == HERE:
                    raise
                print(f"problem {k}: {peer} raises {type(error).__name__}")
                found = {}
            for number, (i, name) in product(NUMBERS, enumerate(ARGUMENTS)):
                got = found[number][i] if number in found else torch.zeros(())
                each = errors.setdefault((peer, number, name), [])
                each.append(_error(got, truth[number].grads[i], truth[number].terms[i]))
    return [_row(*key, found) for key, found in errors.items()]


def _error(grad: Tensor, truth: Tensor, terms: float) -> Error | None:
    """Return the errors, None where there is no derivative, inf where it is no number."""
    if not bool((grad != 0).any()):
        return None
    if not bool(torch.isfinite(grad).all()):
        return Error(math.inf, math.inf)
    off, largest = float((grad - truth).abs().max()), float(truth.abs().max())
    return Error(off / largest, off / max(largest, terms))


def _row(peer: str, number: str, argument: str, found: list[Error | None]) -> dict[str, Any]:
    there = [x for x in found if x is not None]
    plain, of_terms = zip(*there, strict=True) if there else ((), ())
    return {
        "peer": peer,
        "version": version(PEERS[peer][0]),
        "number": number,
        "argument": argument,
        "problems": len(found),
        "answered": len(there),
        "median": statistics.median(plain) if there else None,
        "worst": max(plain) if there else None,
        "above": sum(x > LIMIT for x in plain),
        "worst_of_terms": max(of_terms) if there else None,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--problems", type=int, default=PROBLEMS)


def main(options: argparse.Namespace) -> int:
    """Print the worst errors, and write them where asked; return 1 if one of ours is too large."""
    torch.set_num_threads(1)
    rows = compared(options.problems)
    for row in rows:
        told = "none"
        if row["answered"]:
            told = f"{row['median']:.1e}  {row['worst']:.1e}  {row['worst_of_terms']:.1e}"
        print(
            f"{row['peer']:12s} {row['number']:8s} by {row['argument']:5s} {told:28s} "
            f"{row['answered']} of {row['problems']}"
        )
    worst = max(row["worst_of_terms"] for row in rows if row["peer"] == HERE)
    print(
        f"worst of {HERE}: {worst:.1e}, {'below' if worst < LIMIT else 'FAILED: above'} {LIMIT:g}"
    )
    if options.problems == PROBLEMS:
        print("written to", save("gradients", rows).name)
    return int(not worst < LIMIT)
