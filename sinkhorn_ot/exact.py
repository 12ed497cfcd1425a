"""Exact transport: an engine finds the plan, and dual potentials prove it to the last digits."""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _check
from .certificate import dual_value, feasible_duals
from .cost import Dense
from .coupling import Stored
from .engines import ENGINES, Array, Index, Mask, network_simplex
from .problem import Problem, make
from .result import Transport
from .rounding import feasible
from .status import ConvergenceWarning, Status


# what rounding may do to a gap, relative to the terms that are summed, and to a marginal
_GAP = 1e-12
_MARGINAL = 1e-13
# mass, relative to all, that forbidden pairs may strand before there is no plan: rounded weights do
_STRANDED = 1e-6
# weights this close are equal
_EQUAL = 1e-14
# a round solves for what the duals of the last one left open, on the scale of its gap
_ROUNDS = 4
_CAP = 1e4


def solve_exact(
    cost: Any, a: Any = None, b: Any = None, *, engine: str = "auto", max_iter: int | None = None
) -> Transport:
    """Find an optimal plan of min <P, C>, P 1 = a, P^T 1 = b, and potentials that prove it.

    The potentials satisfy f_i + g_j <= C_ij to the last digit, so `dual_value` bounds the optimum
    from below whatever the engine did. The status is `OPTIMAL` only where the gap is rounding. The
    work is done in float64 on the CPU.

    Args:
        cost: Tensor or array (..., n, m), or a `PointCloud`; inf forbids a pair.
        a: Source weights (..., n); None means 1/n each.
        b: Target weights (..., m); None means 1/m each.
        engine: "network simplex" (POT), "highs" (SciPy), "assignment" (SciPy; as many sources as
            targets, all of one weight), or "auto": network simplex, then HiGHS where that fails.
        max_iter: Pivots at most; None sets a limit far above need. Assignment has no pivots.

    Raises:
        ValueError: If an argument breaks a rule, or the forbidden pairs leave no plan.
    """
    _check.one_of("engine", engine, ("auto", *ENGINES))
    if max_iter is not None:
        _check.count("max_iter", max_iter)
    given = make(cost, a, b)
    p = _in_float64(given)
    order = ("network simplex", "highs") if engine == "auto" else (engine,)
    answers = [_solve(p, k, order, max_iter) for k in range(p.shape[0])]
    _warn(answers)
    home = _moved(p, given.a.device)
    P, f, g = (torch.cat([getattr(x, t) for x in answers]).to(home.a) for t in ("P", "f", "g"))
    return Transport(
        problem=home,
        coupling=Stored(home, P, f, g),
        method="exact: " + " and ".join(sorted({x.engine for x in answers})),
        statuses=[x.status for x in answers],
        sweeps=torch.tensor([x.n_iter for x in answers]).to(home.a.device),
        measured=torch.tensor([x.marginal_error for x in answers]).to(home.a),
    )


@dataclass(frozen=True, eq=False)
class _Answer:
    """What is known of one problem: a plan and feasible potentials, with batch dimension 1.

    Attributes:
        scale: Size of the terms whose difference is the gap: what rounding is relative to.
    """

    P: Tensor
    f: Tensor
    g: Tensor
    gap: float
    scale: float
    marginal_error: float
    engine: str = ""
    n_iter: int = 0
    finished: bool = True

    @property
    def status(self) -> Status:
        if abs(self.gap) <= _GAP * self.scale and self.marginal_error <= _STRANDED:
            return Status.OPTIMAL
        return Status.STALLED if self.finished else Status.MAX_ITER


def _in_float64(p: Problem) -> Problem:
    """Return the problem in float64 on the CPU, with its costs stored and its masses equal."""
    C = p.cost.rows(0, p.shape[1], torch.float64)
    a, b, reg = p.a.double(), p.b.double(), p.reg.double()
    b = b * (a.sum(-1) / b.sum(-1))[:, None]
    return _moved(replace(p, cost=Dense(C), a=a, b=b, reg=reg), torch.device("cpu"))


def _moved(p: Problem, device: torch.device) -> Problem:
    C = p.cost.rows(0, p.shape[1], p.work).to(device)
    return replace(p, cost=Dense(C), a=p.a.to(device), b=p.b.to(device), reg=p.reg.to(device))


def _solve(batch: Problem, k: int, order: tuple[str, ...], max_iter: int | None) -> _Answer:
    """Solve problem `k` by the engines in turn until one proves its answer.

    A round solves for the reduced costs C - f - g that the last one left, on the scale of its gap:
    an engine's absolute tolerance, or a huge cost that no plan uses, then costs no digits.
    """
    p = batch.select(torch.tensor([k]))
    where = f" of problem {k}" if batch.shape[0] > 1 else ""
    if "assignment" in order:
        _matchable(p, where)
    a, b = _routable(p, where)
    f, g = feasible_duals(p, torch.zeros_like(a), torch.zeros_like(b))
    best = _Answer(p.a.new_zeros(p.shape), f, g, gap=math.inf, scale=0.0, marginal_error=math.inf)
    for engine in order:
        for _ in range(_ROUNDS):
            answer = _round(p, a, b, best, engine, max_iter)
            better = best.engine == "" or abs(answer.gap) < abs(best.gap)
            best = answer if better else best
            if not (better and answer.finished and answer.status is not Status.OPTIMAL):
                break
        if best.status is Status.OPTIMAL:
            break
    return best


def _round(
    p: Problem, a: Tensor, b: Tensor, last: _Answer, engine: str, max_iter: int | None
) -> _Answer:
    """Let an engine close the gap that `last` left."""
    rows, columns = a[0].nonzero()[:, 0], b[0].nonzero()[:, 0]
    mass = float(a.sum())
    C = p.cost.rows(0, p.shape[1], p.work)
    reduced = (C - last.f[:, :, None] - last.g[:, None, :])[0][rows][:, columns].numpy()
    allowed = reduced < math.inf
    unit = min(reduced[allowed].max(), last.gap / mass * (len(rows) + len(columns))) or 1.0
    reduced = np.where(allowed, np.minimum(reduced / unit, _CAP), math.inf)
    flow = ENGINES[engine](
        reduced, a[0, rows].numpy() / mass, b[0, columns].numpy() / mass, max_iter
    )
    P, f, g = torch.zeros(p.shape, dtype=p.work), last.f.clone(), last.g.clone()
    P[0, rows[:, None], columns] = torch.from_numpy(np.where(allowed, flow.P * mass, 0.0))
    f[0, rows] += unit * torch.from_numpy(flow.f)
    g[0, columns] += unit * torch.from_numpy(flow.g)
    n_iter = last.n_iter + flow.n_iter
    return replace(_judge(p, P, f, g), engine=engine, n_iter=n_iter, finished=flow.finished)


def _judge(p: Problem, P: Tensor, f: Tensor, g: Tensor) -> _Answer:
    """Make plan and potentials feasible and measure what is between them."""
    f, g = feasible_duals(p, f, g)
    if _marginal_error(p, P) > _MARGINAL:
        P = feasible(Stored(p, P, f, g)).plan()
        P.masked_fill_(p.cost.rows(0, p.shape[1], p.work) == math.inf, 0.0)
    size = replace(p, cost=Dense(p.cost.rows(0, p.shape[1], p.work).abs()))
    scale = Stored(size, P, f, g).linear() + dual_value(p, f.abs(), g.abs())
    gap = Stored(p, P, f, g).linear() - dual_value(p, f, g)
    return _Answer(P, f, g, float(gap), float(scale), _marginal_error(p, P))


def _marginal_error(p: Problem, P: Tensor) -> float:
    off = (P.sum(-1) - p.a).abs().sum() + (P.sum(-2) - p.b).abs().sum()
    return float(off / p.a.sum())


def _matchable(p: Problem, where: str) -> None:
    """Raise unless as many sources as targets have weight, and all the same."""
    rows, columns = p.a[p.a > 0], p.b[p.b > 0]
    spread = max(float(w.max() / w.min()) - 1 for w in (rows, columns))
    if len(rows) != len(columns) or spread > _EQUAL:
        raise ValueError(
            "engine 'assignment' must have as many sources as targets, all of one weight, got "
            f"{len(rows)} and {len(columns)} with weights that differ by a factor of up to "
            f"{1 + spread:.9g}{where}: use engine='network simplex'"
        )


def _routable(p: Problem, where: str) -> tuple[Tensor, Tensor]:
    """Return the weights that allowed pairs can carry: a and b, but for rounding.

    Raises:
        ValueError: If more than rounding is stranded; by Hall's theorem some rows then prove it.
    """
    forbidden = (p.cost.rows(0, p.shape[1], p.work)[0] == math.inf).numpy()
    if not forbidden.any():
        return p.a, p.b
    a, b = p.a[0].numpy(), p.b[0].numpy()
    P = network_simplex(forbidden.astype(float), a / a.sum(), b / a.sum(), None).P * a.sum()
    stranded = np.where(forbidden, P, 0.0).sum(1)
    if stranded.sum() > _STRANDED * a.sum():
        rows, columns = _too_narrow(forbidden, P, stranded > _STRANDED * a.sum() / len(a))
        raise ValueError(
            f"cost must leave a plan: rows {_some(rows)}{where} hold {a[rows].sum():.6g}, but the "
            f"columns they may use take only {b[columns].sum():.6g}, so no plan exists"
        )
    P = torch.from_numpy(np.where(forbidden, 0.0, P))[None]
    return P.sum(-1), P.sum(-2)


def _too_narrow(forbidden: Mask, P: Array, rows: Mask) -> tuple[Index, Index]:
    """Grow stranded rows to a set whose columns serve nobody else, and are full."""
    while True:
        columns = (~forbidden[rows]).any(0)
        grown = rows | (P[:, columns] > 0).any(1)
        if (grown == rows).all():
            return np.flatnonzero(rows), np.flatnonzero(columns)
        rows = grown


def _some(index: Index) -> str:
    shown = ", ".join(map(str, index[:8]))
    return f"[{shown}]" if len(index) <= 8 else f"[{shown}, ...]"


def _warn(answers: list[_Answer]) -> None:
    """Warn if some problem is not proved optimal, and say by how much."""
    bad = [x for x in answers if x.status is not Status.OPTIMAL]
    if bad:
        worst = max(bad, key=lambda x: x.gap)
        warnings.warn(
            f"solve_exact: {len(bad)} of {len(answers)} problems are not proved optimal: "
            f"gap {worst.gap:.3g} between plan and dual and marginal_error "
            f"{worst.marginal_error:.3g} by {worst.engine}. {worst.status.value}",
            ConvergenceWarning,
            stacklevel=3,
        )
