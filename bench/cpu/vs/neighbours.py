"""The problems next door beside POT: a stated mass, other penalties, lines, slices, barycentres.

Each is asked of both as their users do, POT of arrays and ours of tensors. The truth is ours at its
tightest, where the tests hold it to linear programs and closed forms; everyone gets the loosest
stop whose answer is as close to it as asked for.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

import sinkhorn_ot as so
from bench.cpu.cases import dense
from bench.ratios.family import Cell, add_options, measure
from bench.ratios.race import Entrant, Run, race
from bench.ratios.row import Row
from sinkhorn_ot.compat import pot


__all__ = ["add_options", "main"]

FAMILY = "vs_neighbours"
ERROR = 1e-6
_STOPS = [ERROR * 10.0**-k for k in range(-1, 8)]
_MOST = 1_000_000
# takes a stop, and returns what is told
Answer = Callable[[float], Any]


def against(case: str, ours: Answer, peers: dict[str, Answer], error: float = ERROR) -> Row | None:
    """Return the row of one case: answers are compared with ours at its tightest."""
    true = np.asarray(ours(max(1e-12, 1e-5 * error) if error < math.inf else 1e-12))
    stops = _STOPS if error < math.inf else [1e-9]

    def entrant(name: str, answer: Answer, package: str) -> Entrant:
        def prepare(stop: float) -> Run:
            return lambda: answer(stop)

        return Entrant(name, prepare, partial(off, true), stops, package)

    others = [entrant(f"POT {name}", answer, "ot") for name, answer in peers.items()]
    return race((FAMILY, case), entrant("sinkhorn_ot", ours, "sinkhorn_ot"), others, error)


def off(true: Any, found: Any) -> float:
    """Return the L1 error of an answer, relative."""
    x = np.asarray(found)
    return float(np.abs(x - true).sum() / np.abs(true).sum()) if np.isfinite(x).all() else math.inf


def mass(case: str, n: int, reg: float | None) -> Row | None:
    """Half of the mass is to be moved, by an entropic plan or an exact one."""
    import ot

    posed = dense("points", n)
    C, M, w = posed.C, posed.C.numpy(), np.full(n, 1 / n)
    if reg is None:
        exact: Answer = lambda _: so.solve_exact(C, mass=0.5).value  # noqa: E731
        theirs: Answer = lambda _: ot.partial.partial_wasserstein2(w, w, M, m=0.5)  # noqa: E731
        return against(case, exact, {"partial_wasserstein2": theirs})
    ours = partial(_planned, C, reg, mass=0.5)
    name = "entropic_partial_wasserstein"
    call = getattr(ot.partial, name)
    return against(
        case, ours, {name: lambda stop: call(w, w, M, reg, 0.5, numItermax=_MOST, stopThr=stop)}
    )


def _planned(C: Any, reg: float, stop: float, **more: Any) -> Any:
    return so.solve(C, reg=reg, tol=stop, on_fail="ignore", **more).plan


def penalty(case: str, n: int, reg: float, kind: str) -> Row | None:
    """Marginals are relaxed by total variation or by squares."""
    import ot

    posed = dense("points", n)
    rule, rho = {"tv": (so.TV, 0.1), "l2": (so.L2, 0.1 * n)}[kind]
    M, w = posed.C.numpy(), np.full(n, 1 / n)
    call = partial(ot.unbalanced.lbfgsb_unbalanced, w, w, M, reg, rho, reg_div="kl", regm_div=kind)
    theirs: Answer = lambda stop: call(numItermax=_MOST, stopThr=stop)  # noqa: E731
    ours = partial(_planned, posed.C, reg, unbalanced=rule(rho))
    # its plan is off by some percent where it stops
    return against(case, ours, {"lbfgsb_unbalanced": theirs}, 5e-2)


def line(case: str, n: int, p: int, period: float | None) -> Row | None:
    """Points on a line or a circle."""
    import ot

    x, y = _points(n, 1, 0)[:, 0], _points(n, 1, 1)[:, 0]
    X, Y = x.numpy(), y.numpy()
    ours: Answer = lambda _: so.solve_1d(x, y, p=p, period=period).value  # noqa: E731
    peers: dict[str, Answer] = {"wasserstein_1d": lambda _: ot.wasserstein_1d(X, Y, p=p)}
    metric = {1: "cityblock", 2: "sqeuclidean"}[p]
    peers["emd2_1d"] = lambda _: ot.emd2_1d(X, Y, metric=metric)
    if period is not None:
        peers = {"wasserstein_circle": lambda _: ot.wasserstein_circle(X, Y, p=p)[0]}
    return against(case, ours, peers)


def slices(case: str, n: int, d: int) -> Row | None:
    """A hundred slices of two clouds."""
    import ot

    x, y = _points(n, d, 0), _points(n, d, 1)
    at = torch.nn.functional.normalize(_points(100, d, 2) - 0.5, dim=1)
    X, Y, P = x.numpy(), y.numpy(), at.numpy().T
    return against(
        case,
        lambda _: so.sliced_distance(x, y, directions=at).distance,
        {
            "sliced_wasserstein_distance": lambda _: ot.sliced_wasserstein_distance(
                X, Y, projections=P
            )
        },
    )


def _points(n: int, d: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, d, generator=rng, dtype=torch.float64)


def digits(count: int, side: int) -> torch.Tensor:
    """Return scikit-learn's digits as histograms on a grid, each of mass one and nowhere zero."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = torch.from_numpy(bunch["images"][:count])[:, None]
    wide = torch.nn.functional.interpolate(images, (side, side), mode="bilinear")[:, 0]
    flat = wide.clamp(min=0).flatten(1) + 1e-6
    return flat / flat.sum(1, keepdim=True)


def barycenter(case: str, count: int, side: int, reg: float, kind: str) -> Row | None:
    """The barycentre of digits, by a matrix or by a grid."""
    import ot

    a, axis = digits(count, side), torch.linspace(0, 1, side, dtype=torch.float64)
    grid = so.GridCost((axis, axis))
    A, images = a.numpy(), a.reshape(-1, side, side).numpy()
    cost: Any = grid if kind == "grid" else grid.rows(0, side * side)[0]
    ours: Answer = lambda stop: so.barycenter(a, cost, reg, tol=stop, on_fail="ignore").histogram  # noqa: E731
    more: dict[str, Any] = {"numItermax": 100_000}
    peers: dict[str, Answer] = {}
    if kind == "grid":
        name = "convolutional_barycenter2d"
        call = getattr(ot.bregman, name)
        peers[name] = lambda stop: call(images, reg, stopThr=stop, **more).ravel()
    else:
        peers["barycenter"] = lambda stop: ot.bregman.barycenter(
            A.T, cost.numpy(), reg, stopThr=stop, **more
        )
    return against(case, ours, peers, 1e-4)


def metric(case: str, n: int, reg: float) -> Row | None:
    """Clouds by their city-block distances, which POT stores."""
    import ot

    x, y = _points(n, 3, 0), _points(n, 3, 1)
    X, Y, w = x.numpy(), y.numpy(), np.full(n, 1 / n)
    ours = partial(_planned, so.PointCloud(x, y, "manhattan"), reg)

    def theirs(method: str, stop: float) -> Any:
        M = ot.dist(X, Y, "cityblock")
        return ot.sinkhorn(w, w, M, reg, method, numItermax=_MOST, stopThr=stop)

    peers = {name: partial(theirs, name) for name in ("sinkhorn", "sinkhorn_log")}
    return against(case, ours, peers)


def call(case: str, n: int, reg: float) -> Row | None:
    """The same line of code, by POT and by `compat.pot`."""
    import ot

    posed = dense("points", n)
    a, b, M = posed.a.numpy(), posed.b.numpy(), posed.C.numpy()
    here = partial(pot.sinkhorn, a, b, M, reg, numItermax=100_000, warn=False)
    there = partial(ot.sinkhorn, a, b, M, reg, numItermax=100_000, warn=False)
    peers = {
        name: (lambda stop, name=name: there(method=name, stopThr=stop))
        for name in ("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized")
    }
    return against(case, lambda stop: here(stopThr=stop), peers)


_SIZES, _REGS = (50, 300), (0.1, 0.01, 0.001)
_KINDS = ("matrix", "grid")
# what a case is called, who measures it, and the values it takes in all combinations
_CASES: tuple[tuple[str, Callable[..., Row | None], tuple[tuple[Any, ...], ...]], ...] = (
    ("half the mass {} points reg {:g}", mass, (_SIZES, _REGS)),
    ("half the mass {} points exact", mass, ((50, 300, 1000), (None,))),
    ("{2} {0} points reg {1:g}", penalty, (_SIZES, _REGS, ("tv", "l2"))),
    ("line {} points p {}", line, ((100, 10_000, 1_000_000), (1, 2), (None,))),
    ("circle {} points p {}", line, ((100, 10_000), (1, 2), (1.0,))),
    ("slices {} points dimension {}", slices, ((100, 10_000), (3, 64))),
    ("barycentre of {} digits {}^2 reg {:g} {}", barycenter, ((10,), (28,), (4e-3, 1e-3), _KINDS)),
    ("barycentre of {} digits {}^2 reg {:g} {}", barycenter, ((1000,), (28,), (4e-3,), _KINDS[:1])),
    ("barycentre of {} images {}^2 reg {:g} {}", barycenter, ((10,), (64,), (4e-3,), _KINDS[1:])),
    ("city blocks {} points reg {:g}", metric, ((300, 1000), (0.1, 0.01))),
    ("the call of POT {} points reg {:g}", call, ((50, 200, 1000), (1.0, *_REGS))),
)


def cells() -> Iterator[Cell]:
    """Yield every case."""
    for words, of, values in _CASES:
        for chosen in itertools.product(*values):
            case = words.format(*chosen)
            yield Cell(case, partial(of, case, *chosen))


def main(options: argparse.Namespace) -> int:
    """Run the table."""
    return measure(FAMILY, cells(), options)
