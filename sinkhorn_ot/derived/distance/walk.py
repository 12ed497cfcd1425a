"""The walk along the entropic path to the plan whose divergence is alpha, for a batch.

Each look is a solve at one reg, warm-started by Newton's step in both the potentials and reg, and
measured with bounds on the distance: a dual one below, a plan within alpha above.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem
from sinkhorn_ot.results import Solution, Status
from sinkhorn_ot.solvers import Limits, pose, run

from .exactly import exactly
from .moments import Moments, at, measure, unit
from .result import Found
from .search import Point, Search


_EPS = torch.finfo(torch.float64).eps
# looks at most, and the marginal error that is good enough for one from afar
_LOOKS, _LOOSE = 60, 1e-2
# marginal error below which a look sees no more
_FINEST = 1e-13
# share of what the divergence is off by that a look may be in doubt of
_DOUBT = 0.1
# theta up to which independence is a start for the first look
_MILD = 20.0
# a distance closer to zero than this much of the cost's deviation counts as so large
_LEAST = 1e-6
# what rounding may leave of a plan at the smallest reg
_RESOLVED = 1e-2


@dataclass(frozen=True)
class Goal:
    """What is asked for.

    Attributes:
        tol: Gap between the bounds, relative to the distance, and relative marginal error.
        max_iter: Sweeps allowed for each problem.
    """

    tol: float
    max_iter: int


def solved(p: Problem, theta: Tensor, v: Tensor | None, tol: float, max_iter: int) -> Solution:
    """Return the solution at theta, from column potentials or from nothing."""
    posed = pose(at(p, theta), None, v)
    found, _, _ = run(posed, None, Limits(tol, max_iter, None), alone=True)
    return posed.undo(found)


class Walker:
    """One problem on its way: where it looks next, what it knows, and where it ended.

    Attributes:
        found: What it last saw; where it ended, once `ended`.
        tol: Marginal error that its next look needs.
    """

    def __init__(self, p: Problem, k: int, alpha: float, base: Moments, goal: Goal) -> None:
        self._p, self._k, self._alpha, self._goal = p, k, alpha, goal
        self._least, self._dearest = float(base.kl[k]), float(base.cost[k])
        variance = float(base.variance[k])
        self._floor = _LEAST * math.sqrt(variance)
        # where pairs are forbidden alpha itself is rounded against the least divergence
        rise = max(alpha - self._least, _EPS * self._least)
        self._search = Search(rise, variance, _RESOLVED / _EPS)
        self._linear: Found | None = None
        self.found: Found | None = None
        self.ended, self.tol, self.n_iter = False, max(_LOOSE, goal.tol), base.work

    @property
    def theta(self) -> float:
        """Where it looks next."""
        return self._search.theta

    @property
    def left(self) -> int:
        """Sweeps that it may still make."""
        return max(1, self._goal.max_iter - self.n_iter)

    def look(self, m: Moments, i: int, n_iter: int, status: Status) -> None:
        """Take in what problem `i` of a batch has at this theta; end, or choose the next."""
        self.n_iter += n_iter + m.work
        here = self.found = self._bounded(m, i)
        # by what the plan's costs deviate: a dear pair that no plan uses is no measure
        floor = min(self._floor, _LEAST * math.sqrt(max(0.0, float(m.variance[i]))))
        allowed = self._goal.tol * max(abs(here.lower), floor)
        # the path's own bound is a difference of such terms; that of exact transport is not
        own = here.cost + (here.kl - self._alpha) * here.reg
        terms = here.reg * max(self._alpha, self._least)
        rounding = 8 * _EPS * terms if own >= here.lower - allowed else 0.0
        closed = here.upper - here.lower <= allowed + rounding
        if not all(map(math.isfinite, (here.kl, here.lower, here.upper))):
            self._end(Status.NOT_FINITE)
        elif closed and here.error <= self._goal.tol and self._doubted(float(m.doubt[i]), status):
            # weights below tol may be missed as a whole, and what they do to the divergence with
            self.tol = 0.1 * here.error
        elif closed and here.error <= self._goal.tol:
            linear = self._linear
            binds = linear is None or here.lower > linear.upper + allowed
            self.found = replace(here, active=binds)
            self._end(Status.CONVERGED)
        elif self.n_iter >= self._goal.max_iter:
            self._end(Status.MAX_ITER)
        elif closed and self.tol > self._goal.tol and status is not Status.STALLED:
            # reg is right, and the plan not yet
            self.tol = self._tighter(here)
        elif float(m.doubt[i]) > _DOUBT * abs(here.kl - self._alpha) and self.tol > self._goal.tol:
            self.tol = self._tighter(here)
        elif closed or self._search.at_end:
            self.give_up(status if status is Status.MAX_ITER else Status.STALLED)
        else:
            self._move(Point(here.theta, here.kl - self._least, here.theta * float(m.variance[i])))

    def _doubted(self, doubt: float, status: Status) -> bool:
        """Say whether corrections leave the divergence unknown, and a closer look may tell it."""
        here = self.found
        assert here is not None
        outside = max(here.kl - self._alpha, self._least - here.kl)
        unknown = max(doubt, outside) > _DOUBT * self._alpha
        return unknown and status is Status.CONVERGED and here.error > _FINEST

    def _move(self, here: Point) -> None:
        """Choose where to look next; where the path seems to end before alpha, see if it does."""
        self._search.look(here)
        self.tol = max(self._goal.tol, _LOOSE)
        if self._search.ends:
            self._ends_exactly()

    def give_up(self, status: Status) -> None:
        """End where rounding leaves the path no way on, unless it has led to its end."""
        if not self._ends_exactly():
            self._end(status)

    def _ends_exactly(self) -> bool:
        """End with the plan of exact transport where that is within alpha; ask once."""
        if self._linear is None:
            self._linear = linear = exactly(self._p, self._k)
            if linear.kl <= self._alpha * (1 + 1e-12):
                self.found = replace(linear, n_iter=self.n_iter)
                self.ended = True
        return self.ended

    def _tighter(self, here: Found) -> float:
        """Return an error to reach next; Newton's step, made before the look, mostly does."""
        return max(self._goal.tol, 0.1 * min(self.tol, here.error))

    def _end(self, status: Status) -> None:
        assert self.found is not None
        self.found, self.ended = replace(self.found, status=status), True

    def _bounded(self, m: Moments, i: int) -> Found:
        """Return what is found at this theta, with bounds on the distance."""
        theta, cost, kl = (float(t[i]) for t in (m.theta, m.cost, m.kl))
        lower, upper = cost + (kl - self._alpha) / theta, cost
        if kl > self._alpha:
            # mixed with the plan of least divergence it is within alpha, by convexity
            share = min(1.0, (kl - self._alpha) / (kl - self._least))
            upper = cost + share * (self._dearest - cost)
        if self._linear is not None:
            lower = max(lower, self._linear.lower)
        return Found(
            unit=unit(self._p),
            theta=theta,
            reg=1 / theta,
            u=m.u[i],
            v=m.v[i],
            cost=cost,
            kl=kl,
            lower=lower,
            upper=max(upper, lower),
            error=float(m.error[i]),
            n_iter=self.n_iter,
            status=Status.MAX_ITER,
        )


def walk(p: Problem, walkers: dict[int, Walker], base: Moments) -> None:
    """Let each walker, by the number of its problem, find its plan."""
    known, rows = base, list(walkers)
    for look in range(_LOOKS):
        left = [k for k, walker in walkers.items() if not walker.ended]
        if not left:
            break
        here, there = (torch.tensor(x, device=p.a.device) for x in (left, rows))
        some = p if len(left) == p.shape[0] else p.select(here)
        theta = p.reg.new_tensor([walkers[k].theta for k in left])
        v: Tensor | None = _ahead(known, there, theta)
        if look == 0 and float(theta.max()) > _MILD:
            v = None
        tol, most = min(walkers[k].tol for k in left), min(walkers[k].left for k in left)
        found = solved(some, theta, v, tol, most)
        known = measure(some, theta, found.u, found.v)
        for i, k in enumerate(left):
            walkers[k].look(known, i, int(found.n_iter[i]), found.status[i])
        rows = [i for i, k in enumerate(left) if not walkers[k].ended]
    for walker in walkers.values():
        if not walker.ended:
            walker.give_up(Status.MAX_ITER)


def _ahead(known: Moments, rows: Tensor, theta: Tensor) -> Tensor:
    """Return column potentials to start from at theta, by Newton's step from what is known."""
    ahead = (theta - known.theta[rows])[:, None] * known.drift[rows]
    return known.v[rows] + known.mend[rows] + ahead
