"""The optimal plan on a circle: where to cut it, so that the plan keeps the order of points.

Let the target's mass begin by theta later than the source's. For each theta the plan that keeps the
order costs c(theta), convex and piecewise linear, and the least of these is the optimum. It is
found between two cuts whose slopes have two signs: where their tangents meet no plan costs less. A
mixture of the potentials along both ways, of slope zero, closes around the circle, and proves it.

Source: J. Delon, J. Salomon, A. Sobolevskii, Fast transport optimization for Monge costs on the
circle, 2010, section 5; for p = 1, J. Rabin, J. Delon, Y. Gousseau, Transportation distances on the
circle, 2011, proposition 2, where theta is a weighted median.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from sinkhorn_ot.exact.line import (
    Cost,
    Numbers,
    Power,
    Stairs,
    Sums,
    constants,
    counting,
    gaps,
    joined,
    like,
    ordered,
    put,
    stairs,
    taken,
    where,
)
from sinkhorn_ot.problem import shown

from .measures import Measures
from .ways import Pairs


# cuts that are tried at most: an eighth of them halve where the best one can be
_TRIED = 400
# how far from the median for p = 1 the best cut is first sought, times the root of n
_NEAR, _WIDER = 0.3, 16.0
# rounding of sums, relative to their size: of values, and of masses
_ROUNDING, _DIGIT = 1e-13, 8 * float(np.finfo(np.float64).eps)


@shown
class Circle(NamedTuple):
    """Sorted points on a circle.

    Attributes:
        x: Source points in order, from zero to the period, (B, n).
        y: Target points, likewise, (B, m).
        left: Running sums of the source weights.
        right: Running sums of the target weights.
        period: How long the circle is.
    """

    x: Numbers
    y: Numbers
    left: Sums
    right: Sums
    period: float

    @property
    def mass(self) -> Numbers:
        """All there is on each side, (B, 1)."""
        return self.left[0][:, -1:]


@shown
class Cut(NamedTuple):
    """The plan that keeps the order where the target begins by theta later.

    Attributes:
        theta: How much later, in mass, (B, 1).
        way: The plan between the source, and the target from where it begins to there again.
        place: Places of the target points in that order, (B, m + 1).
        turns: How many turns they are ahead, (B, m + 1).
        value: What it costs, (B, 1).
        slope: By how much that grows with theta, (B, 1).
    """

    theta: Numbers
    way: Stairs
    place: Numbers
    turns: Numbers
    value: Numbers
    slope: Numbers


def cut(on: Circle, cost: Cost, theta: Numbers) -> Cut:
    """Return the plan where the target begins by theta later, (B, 1)."""
    m, ends = on.y.shape[1], on.right[0]
    whole = (theta / on.mass).floor() if isinstance(theta, Tensor) else np.floor(theta / on.mass)
    rest = theta - whole * on.mass
    first = (ends[:, :-1] <= rest).sum(-1)[:, None]
    place = first + counting(ends, m + 1)
    turn = place // m
    place, turns = place - m * turn, turn + whole
    sums = taken(ends, place[:, :-1]) + (on.mass * turn[:, :-1] - rest)
    sums = where(sums > on.mass, on.mass, sums.clip(0))
    way = stairs(on.left, (joined(sums, on.mass),))
    y = taken(on.y, place) + on.period * turns
    value = (way.mass * cost.at(taken(on.x, way.i), taken(y, way.j))).sum(-1)
    # where the source is at each step of the target
    x = taken(on.x, way.i[:, :-1][way.right].reshape(len(y), m))
    slope = cost.rise(y[:, :-1], y[:, 1:], x).sum(-1)
    return Cut(theta, way, place, turns, value[:, None], slope[:, None])


@shown
class OnCircle(NamedTuple):
    """The best plan on a circle, and the two cuts that prove it.

    Attributes:
        orders: The points of both sides in their order, (B, n) and (B, m).
        weights: Their weights in that order, (B, n) and (B, m).
        on: They, as they were when it was found.
        thetas: Where the best cut is, and the last ones before and behind it, (B, 1) each.
    """

    orders: tuple[Numbers, Numbers]
    weights: tuple[Numbers, Numbers]
    on: Circle
    thetas: tuple[Numbers, Numbers, Numbers]

    @property
    def pairs(self) -> Pairs:
        """What moves."""
        best = cut(self.on, Power(1.0), self.thetas[0])
        way, target = self._weighed(best), taken(self.orders[1], best.place)
        return Pairs(taken(self.orders[0], way.i), taken(target, way.j), way.mass)

    def value(self, cost: Cost, x: Numbers, y: Numbers) -> Numbers:
        """Return what moving costs as a function of the points."""
        best = cut(self.on, cost, self.thetas[0])
        if not isinstance(x, Tensor):
            return best.value[:, 0]
        x, y = self._sorted(x, y)
        i, j, mass = (like(x, t) for t in self._weighed(best)[1:4])
        return (mass * cost.at(taken(x, i), taken(self._ahead(best, y), j))).sum(-1)

    def potentials(self, cost: Cost, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """Return feasible potentials as functions of the points."""
        x, y = self._sorted(x, y)
        parts = [self._along(cut(self.on, cost, t), cost, x, y) for t in self.thetas[1:]]
        (f, g, s), (F, G, S) = parts
        # of slope zero, or as near to it as rounding lets them
        share = where(s < S, S / where(s < S, S - s, 1 + 0 * s), 0 * s)
        share = where(share > 1, 1 + 0 * s, where(share < 0, 0 * s, share))
        both = (share * f + (1 - share) * F, share * g + (1 - share) * G)
        f, g = (put(t, like(t, at)) for t, at in zip(both, self.orders, strict=True))
        return f, g

    def _along(self, at: Cut, cost: Cost, x: Numbers, y: Numbers) -> tuple[Numbers, ...]:
        """Return potentials along a cut's way, brought to turn zero by its slope, and that."""
        ahead = self._ahead(at, y)
        f, g = at.way.along(cost, x, ahead)
        slope = g[:, -1:] - g[:, :1]
        level = (g - slope * like(g, at.turns))[:, :-1]
        return f, put(level, like(g, at.place[:, :-1])), slope

    def _weighed(self, at: Cut) -> Stairs:
        """Return the way of a cut without what rounding left to points without weight."""
        a, b = self.weights
        return at.way.between(a, taken(b, at.place))

    def _ahead(self, at: Cut, y: Numbers) -> Numbers:
        return taken(y, like(y, at.place)) + self.on.period * like(y, at.turns)

    def _sorted(self, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        return tuple(
            taken(t % self.on.period, like(t, at))
            for t, at in zip((x, y), self.orders, strict=True)
        )


def on_circle(given: Measures, p: float, period: float) -> OnCircle:
    """Return the best plan on a circle."""
    x, y, a, b = (constants(t) for t in (given.x, given.y, given.a, given.b))
    x, y = x % period, y % period
    orders = ordered(x), ordered(y)
    weights = taken(a, orders[0]), taken(b, orders[1])
    left, right = (w.cumsum(-1) for w in weights)
    # both totals are one to the last digit, so that sums go on in order where a turn is over
    right = joined(where(right > left[:, -1:], left[:, -1:], right)[:, :-1], left[:, -1:])
    on = Circle(taken(x, orders[0]), taken(y, orders[1]), (left,), (right,), period)
    (low, v, _), (high, V, _) = _search(on, Power(p), *_bracket(on, Power(p), _median(on)))
    return OnCircle(orders, weights, on, (where(v <= V, low, high), low, high))


def _bracket(on: Circle, cost: Power, start: Numbers) -> tuple[Numbers, Numbers]:
    """Return cuts before and behind the best one, (theta, value, slope) each.

    For p = 1 the start is the best cut itself; for others it is near.
    """
    reach = (_DIGIT if cost.p == 1 else _NEAR / on.x.shape[1] ** 0.5) * on.mass
    while True:
        low, high = _tried(on, cost, start - reach), _tried(on, cost, start + reach)
        wide = (low[2] > 0) | (high[2] < 0)
        if not wide.any():
            return low, high
        reach = where(wide, _WIDER * reach, reach)


def _tried(on: Circle, cost: Power, theta: Numbers) -> Numbers:
    """Return theta, value and slope of a cut."""
    at = cut(on, cost, theta)
    return theta, at.value, at.slope


def _search(on: Circle, cost: Power, low: Numbers, high: Numbers) -> tuple[Numbers, Numbers]:
    """Return two cuts whose tangents meet at a value that is reached, but for rounding."""
    for k in range(_TRIED):
        (t, v, s), (T, V, S) = low, high
        bend = where(s < S, S - s, 1 + 0 * s)
        step = where(s < S, (v - V + S * (T - t)) / bend, 0 * s)
        best = where(v < V, v, V)
        done = best - (v + s * step) <= _ROUNDING * best - _DIGIT * s * step
        done = done | (T - t <= _DIGIT * on.mass)
        if done.all():
            break
        theta = where(done, t, t + _step(k, T - t, step, -s / bend))
        new = _tried(on, cost, theta)
        before = new[2] <= 0
        low = tuple(where(before & ~done, one, other) for one, other in zip(new, low, strict=True))
        high = tuple(where(before | done, other, one) for one, other in zip(new, high, strict=True))
    return low, high


def _step(turn: int, width: Numbers, tangents: Numbers, root: Numbers) -> Numbers:
    """Return how far behind the first of two cuts to try next, by several ways in turn.

    Where the tangents meet, every other time, which ends the search between two corners; where the
    slope is zero if it is straight, which finds these corners if there are many; as far again
    beyond that, so that the best cut is soon between close ones. At times halfway, lest it crawl.

    Args:
        turn: How many were tried.
        width: How far apart both are.
        tangents: How far the tangents meet.
        root: The share of the width at which a straight slope is zero.
    """
    if turn % 8 == 7:
        return width / 2
    step = tangents if turn % 2 else width * root
    if turn % 4 == 2:
        step = where(root < 0.5, 2 * step, 2 * step - width)
    return where(step > width, width, step.clip(0))


def _median(on: Circle) -> Numbers:
    """Return the best theta for p = 1: minus what sums are apart, in the median of the length."""
    at = joined(on.x, on.y)
    order = ordered(at)
    at = taken(at, order)
    rises, falls = (gaps(t[:, :-1], t[:, -1:]) for t in (on.left[0], on.right[0]))
    apart = taken(joined(rises, -falls), order).cumsum(-1)
    length = joined(at[:, 1:] - at[:, :-1], at[:, :1] + on.period - at[:, -1:])
    rank = ordered(apart)
    half = taken(length, rank).cumsum(-1)
    k = (half < half[:, -1:] / 2).sum(-1)[:, None]
    return -taken(taken(apart, rank), k)
