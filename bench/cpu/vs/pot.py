"""Prints how long a solve to 1e-6 takes beside POT's, in one run on one core.

Both errors are re-checked on the plans in float64 by code outside the package. POT's clock includes
the plan it always forms; ours includes every check of the arguments, and the plan only where the
column says so.
"""

import argparse
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch

import sinkhorn_ot as so
from bench.cpu.cases import Case, digit_histograms
from bench.cpu.cases import dense as dense_case
from bench.cpu.measure import in_turn, marginal_error, save
from bench.peers import pot


ERROR = 1e-6
KINDS = ("points", "random")
GRID = [(kind, n, reg) for n in (1000, 2000, 4000) for kind in KINDS for reg in (1e-1, 1e-2, 1e-3)]


def pot_to(case: Case, reg: float, error: float) -> tuple[Callable[[], Any], float]:
    """Return POT's Sinkhorn at the loosest threshold whose plan is measured within `error`.

    POT stops on the L2 error of one marginal, so the threshold that reaches an L1 error is found
    by trying, outside the clock.
    """
    prepare, run, reached = pot.in_numpy("sinkhorn")(case, reg), None, math.inf
    for part in (1, 3, 10, 30, 100, 1000):
        run = prepare(error / part)
        reached = marginal_error(run().plan, case.a, case.b)
        if reached <= error:
            break
    assert run is not None
    return run, reached


def dense(kind: str, n: int, reg: float, runs: int) -> dict[str, Any]:
    """Return one row: a dense cost, Dirichlet weights."""
    case = dense_case(kind, n)
    peer, peer_error = pot_to(case, reg, ERROR)

    def ours() -> so.Transport:
        return so.solve(case.C, case.a, case.b, reg, tol=0.9 * ERROR)

    pair = in_turn(lambda: ours().plan, peer, runs)
    error = marginal_error(ours().plan, case.a, case.b)
    return row(f"{kind} n={n}", reg, pair, error, peer_error)


def digits(reg: float, runs: int) -> dict[str, Any]:
    """Return one row: 1000 digit histograms of 64 bins with a shared cost."""
    case = digit_histograms(1000)
    peer = pot.loop(case, reg)(ERROR / 10)

    def ours() -> so.Transport:
        return so.solve(case.C, case.a, case.b, reg, tol=0.9 * ERROR)

    pair = in_turn(ours, peer, runs)
    error = marginal_error(ours().plan, case.a, case.b)
    return row("1000 digits 64x64", reg, pair, error, marginal_error(peer().plan, case.a, case.b))


def row(name: str, reg: float, pair: Any, error: float, peer_error: float) -> dict[str, Any]:
    """Return the row, and print it."""
    print(
        f"{name:20s} reg {reg:<6g} ours {pair.ours:8.4f} s  POT {pair.peer:8.4f} s  "
        f"{pair.ratio:6.1f}x   errors {error:.1e} {peer_error:.1e}",
        flush=True,
    )
    return {
        "case": name,
        "reg": reg,
        "ours_s": pair.ours,
        "pot_s": pair.peer,
        "ratio": pair.ratio,
        "ours_error": error,
        "pot_error": peer_error,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each, in turn")
    parser.add_argument("--max-n", type=int, help="leave larger problems out, and write nothing")


def main(options: argparse.Namespace) -> None:
    """Run the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    most = options.max_n or math.inf
    rows = [dense(k, n, reg, options.runs) for k, n, reg in GRID if n <= most]
    rows += [digits(reg, options.runs) for reg in (0.1, 0.01)]
    if options.max_n is None:
        print("written to", save("vs_pot", rows).name)
