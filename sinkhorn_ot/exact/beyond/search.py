"""Columns on demand: the simplex on few pairs, a look at all, and again with those it missed.

Each look at all pairs makes feasible potentials of those of the simplex, which bound the optimum
from below; plans of the few pairs bound it from above. A search ends where both meet, or with both
where its time is over. It begins with the potentials of fewer points, found in the same way.

Source: C. Gottschlich, D. Schuhmacher, The shortlist method for fast computation of the earth
mover's distance, PLoS ONE 2014; from coarse to fine as in B. Schmitzer, A sparse multiscale
algorithm for dense optimal transport, J. Math. Imaging Vision 2016.
"""

from dataclasses import dataclass, replace

import numpy as np

from sinkhorn_ot.exact.engines import pivots, simplex_of
from sinkhorn_ot.exact.proof import Measured, proved
from sinkhorn_ot.problem import shown
from sinkhorn_ot.results import Status

from .budget import Budget, Spent
from .coarser import Part, extended, fewer
from .entries import Array, at, matrix
from .few import Few, Solved
from .pairs import Pairs, stairs
from .pricing import Prices


# pairs of a row that are taken first, and that are added where it is undercut; more in proportion
# where columns are more than rows
_FIRST, _MORE = 24, 8
# rounds at most, those of fewer points, and the share of rows that these may miss
_ROUNDS, _ROUGH, _MISSED = 100, 3, 0.02
# pairs that are few enough to be solved whole
_WHOLE = 1 << 16


@shown
@dataclass(frozen=True, eq=False)
class Found:
    """A plan and feasible potentials: what is known of the optimum.

    Attributes:
        plan: The pairs that move mass.
        mass: How much, (K,).
        f: Source potentials, (n,).
        g: Target potentials, (m,); -inf for points without weight.
        lower: <f, a> + <g, b>.
        rounds: Plans that were found.
        missed: Pairs that undercut one of them.
        held: Pairs that were held.
    """

    plan: Pairs
    mass: Array
    f: Array
    g: Array
    lower: float
    rounds: int = 0
    missed: int = 0
    held: int = 0


class Search:
    """A search of one problem, which knows a plan and feasible potentials at any time."""

    def __init__(self, part: Part, low: float, budget: Budget, limit: int | None) -> None:
        """Begin with a plan that fills places in order, and potentials that are all alike.

        Args:
            part: The problem.
            low: What no pair costs less than.
            budget: What may be taken.
            limit: Pivots at most of each simplex; None for far more than it needs.
        """
        n, m = part.cost.shape
        self.part, self.low, self._budget, self._limit = part, low, budget, limit
        self._most = budget.pairs(n, m)
        self._prices = Prices(part.cost, budget)
        i, j, mass = stairs(part.a, part.b)
        plan = Pairs(i, j, at(part.cost, i, j))
        f, g = np.full(n, self._prices.below(low)), np.where(part.b > 0, 0.0, -np.inf)
        self.found = Found(plan, mass, f, g, float(f @ part.a))
        # the last answer of the simplex, which tells why there is no plan
        self.last: Solved | None = None

    def run(self, rough: bool = False) -> Status:
        """Search until the plan is proved, nothing more is gained, or time is over."""
        try:
            return self._rounds(rough)
        except Spent:
            return Status.BUDGET

    def settled(self) -> Array:
        """Return the target potentials of all points: those without weight come last."""
        x, bare = self.found, np.flatnonzero(self.part.b <= 0)
        g = x.g.copy()
        if len(bare):
            g[bare] = self._prices.answered(x.f, bare)
        return g

    def _rounds(self, rough: bool) -> Status:
        part, (n, m) = self.part, self.part.cost.shape
        few, slack = self._first(), np.inf
        limit = pivots(n, m) if self._limit is None else self._limit
        for _ in range(_ROUGH if rough else _ROUNDS):
            self._budget.look()
            self.last = answer = few.solved(part.a, part.b, limit)
            new = self._priced(answer)
            if answer.finished is False:
                return Status.MAX_ITER
            if rough and len(new) <= _MISSED * n:
                break
            known, allowed = self._measured(), np.isfinite(few.pairs.cost[answer.used]).all()
            if allowed and proved(known)[0]:
                return Status.OPTIMAL
            if len(new):
                few = few.grown(new, answer, self._most)
            elif not allowed:
                if few.price > n + m:
                    return Status.INFEASIBLE
                few = few.dearer(answer)
            elif known.slack[0] < slack / 2:
                slack = float(known.slack[0])
                few = few.closer(self.found.f, self.found.g, answer, slack)
            else:
                break
        return Status.STALLED

    def _first(self) -> Few:
        """Return the pairs that potentials of fewer points make the cheapest of their rows."""
        part, m = self.part, self.part.cost.shape[1]
        g = np.where(part.b > 0, self._started(), -np.inf)
        look = self._prices.looked(g, _FIRST * self._wide)
        self._bound(look.f, g)
        return Few.of(look.pairs.joined(self.found.plan, m), look.f, g)

    def _started(self) -> Array:
        """Return target potentials that are about right."""
        part = self.part
        if part.a.size * part.b.size <= _WHOLE:
            return _whole(part)
        self._budget.look()
        few = fewer(part, self._budget.matrix)
        search = Search(few.part, self.low, self._budget, self._limit)
        search.run(rough=True)
        return extended(part.cost, few, search.found.f)

    @property
    def _wide(self) -> int:
        """How many columns there are to a row."""
        n, m = self.part.cost.shape
        return max(1, m // n)

    def _priced(self, answer: Solved) -> Pairs:
        """Look at all pairs, keep what is known by it, and return those that the plan missed."""
        part, few = self.part, answer.few
        f, g = answer.sharp
        below = np.where(part.a > 0, f - few.lost, -np.inf)
        look = self._prices.looked(g, _MORE * self._wide, below)
        new = look.pairs.beyond(few.pairs, len(g))
        self._bound(look.f, g)
        known, used = self.found, answer.used
        if answer.finished:
            known = replace(known, plan=few.pairs.kept(used), mass=answer.mass[used])
        counts = known.rounds + 1, known.missed + len(new), len(few.pairs)
        self.found = replace(known, rounds=counts[0], missed=counts[1], held=counts[2])
        return new

    def _bound(self, f: Array, g: Array) -> None:
        """Keep potentials if they prove more than those that are known."""
        part = self.part
        lower = float(f @ part.a + np.where(part.b > 0, g, 0.0) @ part.b)
        if lower > self.found.lower:
            self.found = replace(self.found, f=f, g=g, lower=lower)

    def _measured(self) -> Measured:
        """Measure what is between the plan and the potentials."""
        part, x = self.part, self.found
        g = np.where(part.b > 0, x.g, 0.0)
        rows, columns = (
            np.bincount(t, x.mass, len(w)) for t, w in ((x.plan.i, part.a), (x.plan.j, part.b))
        )
        off = np.abs(rows - part.a).sum() + np.abs(columns - part.b).sum()
        slack = x.mass @ x.plan.beside(x.f, x.g)
        upper, sizes = x.mass @ x.plan.cost, self._prices.sizes
        terms = x.mass @ np.abs(x.plan.cost) + sizes[0] @ part.a + sizes[1] @ part.b
        scale = terms + np.abs(x.f) @ part.a + np.abs(g) @ part.b
        told = (slack, scale, upper - x.lower, off / part.a.sum())
        return Measured(*(np.array([t]) for t in told))


def _whole(part: Part) -> Array:
    """Return target potentials of few points, by the simplex on all pairs."""
    C = matrix(part.cost, None, None).cpu().numpy()
    allowed = np.isfinite(C)
    C -= C.min(where=allowed, initial=np.inf) if allowed.any() else 0.0
    unit = float(C.max(where=allowed, initial=0.0)) or 1.0
    R = np.where(allowed, C / unit, float(sum(C.shape)))
    b = part.b * (part.a.sum() / part.b.sum())
    return unit * simplex_of(R, part.a, b, pivots(*C.shape), False)[2]
