"""Rounds of engines: the first solves and proves a whole batch, others go on with what it left."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, shown
from sinkhorn_ot.results import Status, Stored, feasible, feasible_duals

from .engines import BATCHED, ENGINES, Flows, as_matching, network_simplex
from .proof import MARGINAL, Array, Index, Mask, Measured, measured, proved, reduced, settled


Weights = tuple[Tensor, Tensor]
Names = npt.NDArray[np.object_]

# rounds of one engine, and the largest cost it then sees, in units of what is left to gain
_ROUNDS = 4
_CAP = 1e4
# what "auto" tries where a first answer is not proved, in turn
_ORDER = ("network simplex", "highs")
# entries of problems that are solved together
_TOGETHER = 1 << 21


@shown
@dataclass(frozen=True, eq=False)
class Answers:
    """What is known of a batch: plans and feasible potentials, and what is between them."""

    P: Array
    f: Array
    g: Array
    measured: Measured
    engine: list[str]
    n_iter: Index
    finished: Mask

    @property
    def proved(self) -> Mask:
        """Which plans are proved optimal, (B,)."""
        return proved(self.measured)

    @property
    def statuses(self) -> list[Status]:
        """How each problem ended."""
        other = {True: Status.STALLED, False: Status.MAX_ITER}
        ended = zip(self.proved.tolist(), self.finished.tolist(), strict=True)
        return [Status.OPTIMAL if good else other[finished] for good, finished in ended]

    def arrays(self) -> Iterator[Any]:
        """Yield every array, each with an entry per problem."""
        m = self.measured
        yield from (self.P, self.f, self.g, m.slack, m.scale, m.gap, m.marginal_error)
        yield from (self.n_iter, self.finished)

    def at(self, k: int) -> "Answers":
        """Return a copy of one of them, as a batch of one."""
        P, f, g, slack, scale, gap, error, n_iter, finished = (t[k : k + 1] for t in self.arrays())
        known = Measured(slack.copy(), scale.copy(), gap.copy(), error.copy())
        mine = (P.copy(), f.copy(), g.copy(), known, [self.engine[k]])
        return Answers(*mine, n_iter.copy(), finished.copy())

    def put(self, index: Index | slice, few: "Answers") -> None:
        """Replace some of them."""
        for mine, new in zip(self.arrays(), few.arrays(), strict=True):
            mine[index] = new
        for k, name in zip(np.arange(len(self.engine))[index], few.engine, strict=True):
            self.engine[k] = name


def attempted(p: Problem, weights: Weights, engine: str, max_iter: int | None) -> Answers:
    """Solve a batch by one round of an engine."""
    B, n, m = p.shape
    step = max(1, _TOGETHER // (n * m))
    groups = [slice(k, k + step) for k in range(0, B, step)]
    parts = [_first(_Batch.of(p, weights, group), engine, max_iter) for group in groups]
    return parts[0] if len(parts) == 1 else _joined(parts)


def solved(p: Problem, weights: Weights, engine: str, max_iter: int | None) -> Answers:
    """Solve a batch: by one round of an engine, and where that proves too little by all others."""
    found = attempted(p, weights, engine, max_iter)
    for k in np.flatnonzero(~found.proved).tolist():
        index = torch.tensor([k], device="cpu")
        carried = weights[0][index], weights[1][index]
        order = (found.engine[k], *(e for e in _ORDER if engine == "auto" and e != found.engine[k]))
        found.put(slice(k, k + 1), _go_on(p.select(index), carried, found.at(k), order, max_iter))
    return found


@shown
@dataclass(frozen=True, eq=False)
class _Batch:
    """Some problems as arrays: costs (B, n, m), or (1, n, m) that all share, and weights.

    Attributes:
        C: Costs.
        a: Source weights, (B, n).
        b: Target weights, (B, m).
        mass: What all of them sum to, (B,).
        left: Source weights that allowed pairs can carry, of mass one, (B, n).
        right: Target weights, likewise, (B, m).
        forbids: Whether some pairs are forbidden.
    """

    C: Array
    a: Array
    b: Array
    mass: Array
    left: Array
    right: Array
    forbids: bool

    @staticmethod
    def of(p: Problem, weights: Weights, group: slice) -> "_Batch":
        C = costs(p)
        C = C if p.shared or len(C) == 1 else C[group]
        a, b, left, right = (t[group].numpy() for t in (p.a, p.b, *weights))
        mass = left.sum(1)
        left, right = (np.ascontiguousarray(t / mass[:, None]) for t in (left, right))
        return _Batch(C.numpy(), a, b, mass, left, right, p.bounds.forbids)


def _first(x: _Batch, engine: str, max_iter: int | None) -> Answers:
    """Let an engine solve all problems; its potentials are proved in one pass over the costs."""
    r = reduced(x.C)
    B = len(x.mass)
    names = np.full(B, engine, object)
    if engine == "auto":
        matched = as_matching(r.R, x.left, x.right)
        names = np.where(matched, "assignment", "network simplex").astype(object)
    R = np.broadcast_to(r.R, (B, *r.R.shape[1:]))
    flows = _by_engines(names, R, x.left, x.right, max_iter)
    P = flows.P
    if (x.mass != 1).any():
        P *= x.mass[:, None, None]
    if x.forbids:
        P[np.broadcast_to(math.inf == x.C, P.shape)] = 0.0
    g = r.g + r.unit[:, None] * flows.g
    f, g = settled(x.C, g, x.b)
    return Answers(
        P, f, g, measured(x.C, P, f, g, x.a, x.b), names.tolist(), flows.n_iter, flows.finished
    )


def _by_engines(names: Names, R: Array, a: Array, b: Array, max_iter: int | None) -> Flows:
    """Solve each problem by the engine named for it."""
    asked = sorted(set(names))
    if len(asked) == 1:
        return _by_engine(asked[0], R, a, b, max_iter)
    index = [np.flatnonzero(names == name) for name in asked]
    parts = [
        _by_engine(name, R[k], a[k], b[k], max_iter) for name, k in zip(asked, index, strict=True)
    ]
    back = np.argsort(np.concatenate(index))
    return Flows(*(np.concatenate(t)[back] for t in zip(*parts, strict=True)))


def _by_engine(name: str, R: Array, a: Array, b: Array, max_iter: int | None) -> Flows:
    engine = ENGINES[name]
    bare = bool((a <= 0).any() or (b <= 0).any())
    if engine in BATCHED and (engine is network_simplex or not bare):
        return BATCHED[engine](R, a, b, max_iter)
    P, (f, g) = np.zeros(R.shape), (np.zeros_like(t) for t in (a, b))
    ended = []
    for k in range(len(R)):
        rows, columns = np.flatnonzero(a[k]), np.flatnonzero(b[k])
        flow = engine(R[k][rows[:, None], columns], a[k, rows], b[k, columns], max_iter)
        P[k, rows[:, None], columns] = flow.P
        f[k, rows], g[k, columns] = flow.f, flow.g
        ended.append((flow.n_iter, flow.finished))
    n_iter, finished = zip(*ended, strict=True)
    return Flows(P, f, g, np.array(n_iter), np.array(finished))


def _joined(parts: list[Answers]) -> Answers:
    P, f, g, slack, scale, gap, error, n_iter, finished = (
        np.concatenate(t) for t in zip(*(x.arrays() for x in parts), strict=True)
    )
    engine = [name for x in parts for name in x.engine]
    return Answers(P, f, g, Measured(slack, scale, gap, error), engine, n_iter, finished)


def _go_on(
    p: Problem, weights: Weights, first: Answers, order: tuple[str, ...], max_iter: int | None
) -> Answers:
    """Go on with one problem by the engines in turn until one proves its answer.

    A round solves for the reduced costs C - f - g that the last one left, in units of what is left
    to gain: an engine's absolute tolerance, or a huge cost that no plan uses, then costs no digits.
    """
    best = None
    for engine in order:
        for _ in range(_ROUNDS):
            if best is None:
                answer = _judged(p, first, first.P, first.f, first.g)
            else:
                answer = _round(p, weights, best, engine, max_iter)
            better = best is None or bool(answer.measured.slack[0] < best.measured.slack[0])
            best = answer if better or best is None else best
            if not (better and answer.finished[0] and not answer.proved[0]):
                break
        if best is not None and best.proved[0]:
            break
    assert best is not None
    return best


def _round(
    p: Problem, weights: Weights, last: Answers, engine: str, max_iter: int | None
) -> Answers:
    """Let an engine gain what `last` left; it sees no point without weight."""
    mass = float(weights[0].sum())
    a, b = (w[0].numpy() / mass for w in weights)
    rows, columns = np.flatnonzero(a), np.flatnonzero(b)
    left = (costs(p)[0].numpy() - last.f[0][:, None] - last.g[0])[rows[:, None], columns]
    allowed = np.isfinite(left)
    slack = float(last.measured.slack[0])
    unit = min(left[allowed].max(), slack / mass * sum(left.shape)) or 1.0
    left = np.where(allowed, np.minimum(left / unit, _CAP), math.inf)
    flow = ENGINES[engine](left, a[rows], b[columns], max_iter)
    P, f, g = np.zeros_like(last.P), last.f.copy(), last.g.copy()
    P[0, rows[:, None], columns] = np.where(allowed, flow.P * mass, 0.0)
    f[0, rows] += unit * flow.f
    g[0, columns] += unit * flow.g
    told = replace(
        last,
        engine=[engine],
        n_iter=last.n_iter + flow.n_iter,
        finished=np.array([flow.finished]),
    )
    return _judged(p, told, P, f, g)


def _judged(p: Problem, told: Answers, plan: Array, *duals: Array) -> Answers:
    """Complete a plan that misses its marginals, and take the best potentials near those given."""
    C = costs(p)
    P = torch.from_numpy(plan)
    f, g = feasible_duals(p, *map(torch.from_numpy, duals))
    off = (P.sum(-1) - p.a).abs().sum() + (P.sum(-2) - p.b).abs().sum()
    if float(off / p.a.sum()) > MARGINAL:
        P = feasible(Stored(p, P, f, g)).plan().masked_fill_(C.isinf(), 0.0)
    known = measured(*(t.numpy() for t in (C, P, f, g, p.a, p.b)))
    return replace(told, P=P.numpy(), f=f.numpy(), g=g.numpy(), measured=known)


def costs(p: Problem) -> Tensor:
    """Return all costs, (B, n, m) or (1, n, m), in the working dtype."""
    return p.cost.rows(0, p.shape[1]).to(p.work)
