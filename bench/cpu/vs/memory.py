"""Peak memory of every family beside its peers', each in a fresh process, above imports and inputs.

A ratio is the least of the peers' over ours. What a peer hands over, ours does too: plans for
plans, values for values, labels for labels.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import sinkhorn_ot as so
from bench import ROOT
from bench.cpu.cases import Case, digits, dirichlet
from bench.cpu.vs import emd, l1, published, sela, simplex
from bench.cpu.vs.batches import points
from bench.peers import ALL
from bench.ratios.family import Cell, measure, on_one_core
from bench.ratios.family import add_options as add_choice
from bench.ratios.row import Row


FAMILY, OURS = "memory", "sinkhorn_ot"
_MB, _PATIENCE = 1 << 20, 300.0
Acts = dict[str, Callable[[], Any]]


def stored(kind: str, small: bool) -> Acts:
    """Plans of a stored cost."""
    n = 50 if small else 4000
    C = torch.rand(n, n, generator=torch.Generator().manual_seed(0), dtype=getattr(torch, kind))
    case = Case("", C, *(dirichlet(n, seed).to(C.dtype) for seed in (1, 2)))
    return {name: plan_of(name, case, 0.05, 1e-4) for name in (OURS, "POT")}


def plan_of(name: str, case: Case, reg: float, tol: float) -> Callable[[], Any]:
    """Return how a solver of `bench.peers` makes its plan; what it loads counts too."""
    return lambda: ALL[name].load(case, reg)(tol)().plan


def batch(small: bool) -> Acts:
    """Plans of a batch of problems with a shared cost."""
    count, n = (2, 20) if small else (64, 400)
    C = torch.rand(n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    case = Case("", C, points(count, n, 1, False), points(count, n, count + 1, False))
    return {name: plan_of(name, case, 0.05, 1e-6) for name in (OURS, "POT batch")}


def clouds(small: bool) -> Acts:
    """Values between two clouds in 16 dimensions."""
    n = 50 if small else 20_000
    x, y = torch.randn(2, n, 16, generator=torch.Generator().manual_seed(0))

    def ours(cost: Any) -> Any:
        return so.solve(cost, reg=1.0, tol=1e-3).value

    def geomloss() -> Any:
        from geomloss import ot  # pyright: ignore[reportMissingImports]

        found: Any = ot.solve_sample(x, y, reg=1.0, max_iter=10)
        return found.value

    acts = {OURS: lambda: ours(so.PointCloud(x, y)), "stored": lambda: ours(squared(x, y))}
    return acts | ({"GeomLoss": geomloss} if find_spec("geomloss") else {})


def squared(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return squared distances, in their own place."""
    return torch.cdist(x, y).square_()


def relaxed(small: bool) -> Acts:
    """Plans of relaxed marginals."""
    import ot

    n = 50 if small else 3000
    x, y = torch.rand(2, n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    C, a, b = squared(x, y), dirichlet(n, 1), dirichlet(n, 2)
    act, given = ot.unbalanced.sinkhorn_unbalanced, (a.numpy(), b.numpy(), C.numpy(), 0.05, 1.0)
    return {
        OURS: lambda: so.solve(C, a, b, 0.05, unbalanced=1.0, tol=1e-6).plan,
        "POT": lambda: act(*given, stopThr=1e-6),
    }


def exact(small: bool) -> Acts:
    """Exact plans."""
    import ot

    n = 50 if small else 1000
    C, a, b = (t[0] for t in emd.posed(emd.Size(1, n, n, 2, False)))
    return {
        OURS: lambda: so.solve_exact(C, a, b).plan,
        "ot.emd": lambda: ot.emd(a, b, C, numItermax=10**8),
    }


def labels(small: bool) -> Acts:
    """Labels in exact counts."""
    import ot

    N, K = (200, 10) if small else (20_000, 100)
    S = simplex.scores(N, K, 2.5)
    return {
        OURS: lambda: so.balanced_labels(S).labels,
        "simplex": lambda: ot.emd([], [], -S.numpy(), numItermax=10**9).argmax(1),
    }


def sela_loop(small: bool) -> Acts:
    """SeLa's labels, each from the network's outputs in float32."""
    S = sela.log_probs(*((200, 10) if small else (200_000, 1000)), 1.0)
    return {
        OURS: lambda: so.sela_labels(S).labels,
        "loop": lambda: sela.published(S.double().exp_()),
    }


def swav_loop(small: bool) -> Acts:
    """SwAV's codes."""
    S = torch.randn(*((20, 30) if small else (4096, 3000)))
    S = S.mul_(0.1).clamp_(-1, 1)
    return {
        OURS: lambda: so.swav_codes(S),
        "loop": lambda: published.published_swav(S, 0.05, 3),
    }


def pixels(small: bool) -> Acts:
    """Plans of city-block distances of pixels."""
    side = 8 if small else 40
    a, b = (digits(1, side, seed, False)[0] for seed in (1, 101))
    case = Case("", l1.pixels(side, "L1"), a, b)
    names = [name for name in (OURS, "MDOT-TNT") if ALL[name].installed]
    return {name: plan_of(name, case, 1 / 1024, 1e-2) for name in names}


CASES: dict[str, Callable[[bool], Acts]] = {
    "stored 4000x4000 float64": partial(stored, "float64"),
    "stored 4000x4000 float32": partial(stored, "float32"),
    "batch 64 of 400x400 one cost": batch,
    "clouds 20000 d=16 float32": clouds,
    "relaxed 3000x3000": relaxed,
    "solve_exact 1000x1000": exact,
    "balanced_labels 20000x100": labels,
    "sela_labels 200000x1000": sela_loop,
    "swav_codes 4096x3000": swav_loop,
    "L1 40x40 pixels reg 1/1024": pixels,
}


def cell(case: str) -> Row | None:
    """Return one row, in megabytes."""
    names = list(CASES[case](True))
    peaks = {name: in_child(case, name) for name in names}
    found = {name: peak for name, peak in peaks.items() if peak is not None}
    ours = found.pop(OURS)
    if not found:
        return None
    best = min(found, key=found.__getitem__)
    return Row(FAMILY, case, best, ours, found[best], others=found, unit="MB")


def in_child(case: str, name: str) -> float | None:
    """Return the peak of one act in megabytes; None where it fails."""
    command = [sys.executable, "-m", "bench", "memory", "--only", case, "--act", name]
    # what is freed goes back at once, and cannot be used again unseen
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(_MB), "MALLOC_TRIM_THRESHOLD_": str(_MB)}
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": _PATIENCE}
    try:
        out = subprocess.run(command, cwd=ROOT, env=env, check=True, **options)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"{case}: {name} failed: {error}")
        return None
    return float(out.stdout.splitlines()[-1])


def peak(case: str, name: str) -> float:
    """Return the peak of one act of this process in megabytes, once all is imported and made."""
    with on_one_core(), contextlib.redirect_stdout(io.StringIO()):
        CASES[case](True)[name]()
        act = CASES[case](False)[name]
        # the highest mark is set back to what is held now
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        act()
        # what is below a megabyte is the allocator's
        return max(1.0, (status("VmHWM") - before) / 1024)


def status(name: str) -> int:
    """Return a line of this process's status, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for case in CASES:
        yield Cell(case, partial(cell, case))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked for."""
    add_choice(parser)
    parser.add_argument("--act", help="whose peak to print, of one case in this process")


def main(options: argparse.Namespace) -> int:
    """Run the table, or one act."""
    if options.act is None:
        return measure(FAMILY, cells(), options)
    print(peak(options.only, options.act))
    return 0
