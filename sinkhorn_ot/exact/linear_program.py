"""Exact transport: an engine finds the plan, and dual potentials prove it to the last digits."""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import Dense, Problem, checks, make, shown
from sinkhorn_ot.results import (
    ConvergenceWarning,
    Status,
    Stored,
    Stranded,
    Transport,
    below,
    dual_value,
    feasible,
    feasible_duals,
    transform_columns,
    transform_rows,
    uncompiled,
)

from .engines import ENGINES, Array, Index, Mask, network_simplex
from .hall import stranded


# what rounding may leave of <P, C - f - g>, relative to its terms, and of a marginal
_SLACK = 1e-12
_MARGINAL = 1e-13
_DIGIT = 16 * torch.finfo(torch.float64).eps
# mass, relative to all, that forbidden pairs may strand before there is no plan, where weights were
# not rounded by more
_STRANDED = 1e-8
# weights no more than this factor apart are equal
_EQUAL = 1 + 1e-14
# rounds of one engine, and the largest cost it then sees, in units of what is left to gain
_ROUNDS = 4
_CAP = 1e4


@uncompiled
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
    checks.one_of("engine", engine, ("auto", *ENGINES))
    max_iter = None if max_iter is None else checks.count("max_iter", max_iter)
    given = make(cost, a, b)
    p = _in_float64(given)
    order = ("network simplex", "highs") if engine == "auto" else (engine,)
    problems = [_posed(p, k, order) for k in range(p.shape[0])]
    answers = [_solve(*one, order, max_iter) for one in problems]
    _warn(answers)
    a, b = (torch.cat([getattr(one, t) for one, _ in problems]) for t in ("a", "b"))
    home = _moved(replace(p, a=a, b=b), given.a.device)
    P, f, g = (torch.cat([getattr(x, t) for x in answers]).to(home.a) for t in ("P", "f", "g"))
    return Transport(
        problem=home,
        coupling=Stored(home, P, f, g),
        method="exact: " + " and ".join(sorted({x.engine for x in answers})),
        statuses=[x.status for x in answers],
        sweeps=torch.tensor([x.n_iter for x in answers], device=home.a.device),
        measured=home.a.new_tensor([x.marginal_error for x in answers]),
    )


@shown
@dataclass(frozen=True, eq=False)
class _Answer:
    """What is known of one problem: a plan and feasible potentials, with batch dimension 1.

    Attributes:
        slack: <P, C - f - g>, never negative: how far the plan is from optimal for its marginals.
        scale: Size of the terms of the slack: what rounding is relative to.
        gap: <P, C> - <f, a> - <g, b>: the slack, and what the marginals miss.
    """

    P: Tensor
    f: Tensor
    g: Tensor
    slack: float = math.inf
    scale: float = 0.0
    gap: float = math.inf
    marginal_error: float = math.inf
    engine: str = ""
    n_iter: int = 0
    finished: bool = False

    @property
    def status(self) -> Status:
        rounding = _SLACK * self.scale
        # beside huge potentials the last digit of a marginal may outweigh the whole value
        allowed = _MARGINAL if abs(self.gap) <= rounding else _DIGIT
        if self.slack <= rounding and self.marginal_error <= allowed:
            return Status.OPTIMAL
        return Status.STALLED if self.finished else Status.MAX_ITER


def _in_float64(p: Problem) -> Problem:
    """Return the problem in float64 on the CPU, with its costs stored and its masses equal."""
    cost = Dense(p.cost.rows(0, p.shape[1]).double())
    a, b, reg = p.a.double(), p.b.double(), p.reg.double()
    b = b * (a.sum(-1) / b.sum(-1))[:, None]
    return _moved(replace(p, cost=cost, a=a, b=b, reg=reg), torch.device("cpu"))


def _moved(p: Problem, device: torch.device) -> Problem:
    a, b, reg = (t.to(device) for t in (p.a, p.b, p.reg))
    return replace(p, cost=Dense(_costs(p).to(device)), a=a, b=b, reg=reg)


def _posed(batch: Problem, k: int, order: tuple[str, ...]) -> tuple[Problem, tuple[Tensor, Tensor]]:
    """Return problem `k` and the weights that its allowed pairs can carry.

    Groups of points that only serve each other are like all points: where their masses differ by
    the rounding of the weights, they are made equal.
    """
    p = batch.select(torch.tensor([k], device="cpu"))
    where = f" in problem {k}" if batch.shape[0] > 1 else ""
    if "assignment" in order:
        _matchable(p, where)
    a, b = _routable(p, where)
    off = float((a - p.a).abs().sum() + (b - p.b).abs().sum())
    if _MARGINAL < off / float(p.a.sum()) <= 2 * p.rounded:
        p = replace(p, a=a, b=b)
    return p, (a, b)


def _solve(
    p: Problem, weights: tuple[Tensor, Tensor], order: tuple[str, ...], max_iter: int | None
) -> _Answer:
    """Solve one problem by the engines in turn until one proves its answer.

    A round solves for the reduced costs C - f - g that the last one left, in units of what is left
    to gain: an engine's absolute tolerance, or a huge cost that no plan uses, then costs no digits.
    """
    f = transform_rows(p, torch.zeros_like(p.b))
    best = _Answer(p.a.new_zeros(p.shape), f, transform_columns(p, f, below))
    for engine in order:
        for _ in range(_ROUNDS):
            answer = _round(p, weights, best, engine, max_iter)
            better = best.engine == "" or answer.slack < best.slack
            best = answer if better else best
            if not (better and answer.finished and answer.status is not Status.OPTIMAL):
                break
        if best.status is Status.OPTIMAL:
            break
    return best


def _round(
    p: Problem, weights: tuple[Tensor, Tensor], last: _Answer, engine: str, max_iter: int | None
) -> _Answer:
    """Let an engine gain what `last` left; it sees no point without weight."""
    a, b = (w[0] / weights[0].sum() for w in weights)
    rows, columns = a.nonzero()[:, 0], b.nonzero()[:, 0]
    reduced = (_costs(p) - last.f[:, :, None] - last.g[:, None, :])[0][rows][:, columns].numpy()
    allowed = np.isfinite(reduced)
    mass = float(weights[0].sum())
    unit = min(reduced[allowed].max(), last.slack / mass * sum(reduced.shape)) or 1.0
    reduced = np.where(allowed, np.minimum(reduced / unit, _CAP), math.inf)
    flow = ENGINES[engine](reduced, a[rows].numpy(), b[columns].numpy(), max_iter)
    P, f, g = torch.zeros_like(last.P), last.f.clone(), last.g.clone()
    P[0, rows[:, None], columns] = torch.from_numpy(np.where(allowed, flow.P * mass, 0.0))
    f[0, rows] += unit * torch.from_numpy(flow.f)
    g[0, columns] += unit * torch.from_numpy(flow.g)
    answer = _judged(p, P, *feasible_duals(p, f, g))
    return replace(answer, engine=engine, n_iter=last.n_iter + flow.n_iter, finished=flow.finished)


def _judged(p: Problem, P: Tensor, f: Tensor, g: Tensor) -> _Answer:
    """Complete a plan that misses its marginals, and measure what is between it and the dual."""
    C = _costs(p)
    if _marginal_error(p, P) > _MARGINAL:
        P = feasible(Stored(p, P, f, g)).plan().masked_fill_(C.isinf(), 0.0)
    used = P.nonzero(as_tuple=True)
    mass, cost, f_used, g_used = P[used], C[used], f[used[:2]], g[used[::2]]
    slack, upper, terms = (float(mass @ t) for t in (cost - f_used - g_used, cost, cost.abs()))
    lower, bulk = (float(dual_value(p, *duals)) for duals in ((f, g), (f.abs(), g.abs())))
    return _Answer(P, f, g, slack, terms + bulk, upper - lower, _marginal_error(p, P))


def _costs(p: Problem) -> Tensor:
    return p.cost.rows(0, p.shape[1]).to(p.work)


def _marginal_error(p: Problem, P: Tensor) -> float:
    off = (P.sum(-1) - p.a).abs().sum() + (P.sum(-2) - p.b).abs().sum()
    return float(off / p.a.sum())


def _matchable(p: Problem, where: str) -> None:
    """Raise unless as many sources as targets have weight, and all the same."""
    rows, columns = p.a[p.a > 0], p.b[p.b > 0]
    spread = max(float(w.max() / w.min()) for w in (rows, columns))
    if len(rows) != len(columns) or spread > _EQUAL:
        raise ValueError(
            "engine 'assignment' must have as many sources as targets, all of one weight, got "
            f"{len(rows)} and {len(columns)} with weights up to a factor of {spread:.9g} apart"
            f"{where}: use engine='network simplex'"
        )


def _routable(p: Problem, where: str) -> tuple[Tensor, Tensor]:
    """Return the weights that allowed pairs can carry: a and b, but for rounding.

    Raises:
        ValueError: If more than rounding is stranded; by Hall's theorem some rows then prove it.
    """
    forbidden = _costs(p)[0].isinf().numpy()
    if not forbidden.any():
        return p.a, p.b
    a, b = p.a[0].numpy(), p.b[0].numpy()
    excuse = max(_STRANDED, p.rounded) * a.sum()
    # a flow in whole numbers proves what is far from rounding, long before the simplex does
    why = stranded(~forbidden, a, b)
    if why is not None and why.held - why.taken > excuse:
        raise _no_plan(where, why)
    P = network_simplex(forbidden.astype(float), a / a.sum(), b / a.sum(), None).P * a.sum()
    left = np.where(forbidden, P, 0.0).sum(1)
    if left.sum() > excuse:
        rows, columns = _too_narrow(forbidden, P, left > excuse / len(a))
        raise _no_plan(where, Stranded(rows, columns, a[rows].sum(), b[columns].sum()))
    P = torch.from_numpy(np.where(forbidden, 0.0, P))[None]
    return P.sum(-1), P.sum(-2)


def _no_plan(where: str, why: Stranded) -> ValueError:
    return ValueError(f"cost must leave a plan{where}: {why}, so no plan exists")


def _too_narrow(forbidden: Mask, P: Array, rows: Mask) -> tuple[Index, Index]:
    """Grow stranded rows to a set whose columns serve nobody else, and are full."""
    while True:
        columns = (~forbidden[rows]).any(0)
        grown = rows | (P[:, columns] > 0).any(1)
        if (grown == rows).all():
            return np.flatnonzero(rows), np.flatnonzero(columns)
        rows = grown


def _warn(answers: list[_Answer]) -> None:
    """Warn if some problem is not proved optimal, and say by how much."""
    bad = [x for x in answers if x.status is not Status.OPTIMAL]
    if bad:
        worst = max(bad, key=lambda x: x.gap)
        hint = ": raise max_iter" if worst.status is Status.MAX_ITER else ""
        warnings.warn(
            f"solve_exact: {len(bad)} of {len(answers)} problems are not proved optimal, "
            f"at worst a gap of {worst.gap:.3g} and a marginal_error of {worst.marginal_error:.3g} "
            f"by {worst.engine}{hint}",
            ConvergenceWarning,
            stacklevel=4,
        )
