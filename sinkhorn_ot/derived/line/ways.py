"""The optimal plan on a line: which points move to which, and the potentials that prove it."""

from typing import NamedTuple, Protocol

from sinkhorn_ot.exact.line import (
    Cost,
    Numbers,
    Stairs,
    constants,
    like,
    ordered,
    put,
    stairs,
    taken,
)
from sinkhorn_ot.problem import shown

from .measures import Measures


@shown
class Pairs(NamedTuple):
    """What moves: mass from points to points, (B, K) each."""

    source: Numbers
    target: Numbers
    mass: Numbers


class Way(Protocol):
    """An optimal plan of a batch, whatever the points lie on."""

    @property
    def pairs(self) -> Pairs:
        """What moves."""
        ...

    def value(self, cost: Cost, x: Numbers, y: Numbers) -> Numbers:
        """Return what moving costs, (B,), as a function of the points."""
        ...

    def potentials(self, cost: Cost, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """Return feasible potentials, (B, n) and (B, m), as functions of the points."""
        ...


@shown
class OnLine(NamedTuple):
    """The plan that keeps the order of points on a line.

    Attributes:
        orders: The points of both sides in their order, (B, n) and (B, m).
        weights: Their weights, (B, n) and (B, m).
        matched: Whether all weights are the same, so that each point moves to one.
    """

    orders: tuple[Numbers, Numbers]
    weights: tuple[Numbers, Numbers]
    matched: bool

    @property
    def pairs(self) -> Pairs:
        """What moves."""
        if self.matched:
            return Pairs(*self.orders, self.weights[0])
        way = self._stairs()
        return Pairs(taken(self.orders[0], way.i), taken(self.orders[1], way.j), way.mass)

    def value(self, cost: Cost, x: Numbers, y: Numbers) -> Numbers:
        """Return what moving costs as a function of the points."""
        x, y = self._sorted(x, y)
        if self.matched:
            return (like(x, self.weights[0]) * cost.at(x, y)).sum(-1)
        i, j, mass = (like(x, t) for t in self._stairs()[1:4])
        return (mass * cost.at(taken(x, i), taken(y, j))).sum(-1)

    def potentials(self, cost: Cost, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """Return feasible potentials as functions of the points."""
        x, y = self._sorted(x, y)
        f, g = self._stairs().along(cost, x, y)
        return put(f, like(x, self.orders[0])), put(g, like(x, self.orders[1]))

    def _sorted(self, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        return taken(x, like(x, self.orders[0])), taken(y, like(x, self.orders[1]))

    def _stairs(self) -> Stairs:
        a, b = (taken(w, t) for w, t in zip(self.weights, self.orders, strict=True))
        return stairs((a.cumsum(-1),), (b.cumsum(-1),)).between(a, b)


def on_line(given: Measures) -> OnLine:
    """Return the plan that keeps the order of points."""
    x, y, a, b = map(constants, (given.x, given.y, given.a, given.b))
    matched = given.uniform and x.shape == y.shape
    return OnLine((ordered(x), ordered(y)), (a, b), matched)
