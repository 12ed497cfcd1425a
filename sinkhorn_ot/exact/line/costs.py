"""What pairs on a line cost, and by how much that grows from one point to the next."""

from typing import NamedTuple, Protocol

from sinkhorn_ot.problem import shown

from .arrays import Numbers


class Cost(Protocol):
    """A cost on the line for which no plan is better than one that keeps the order of points.

    That is one with c(x, y) + c(x', y') <= c(x, y') + c(x', y) for x <= x', y <= y' (Monge's).
    """

    def at(self, x: Numbers, y: Numbers) -> Numbers:
        """Return what pairs cost."""
        ...

    def rise(self, start: Numbers, end: Numbers, other: Numbers) -> Numbers:
        """Return c(end, other) - c(start, other), without the rounding of both, if end >= start."""
        ...


@shown
class Power(NamedTuple):
    """|x - y| ** p, p >= 1."""

    p: float

    def at(self, x: Numbers, y: Numbers) -> Numbers:
        """Return what pairs cost."""
        apart = abs(x - y)
        return apart if self.p == 1 else apart * apart if self.p == 2 else apart**self.p

    def rise(self, start: Numbers, end: Numbers, other: Numbers) -> Numbers:
        """Return the difference of two costs."""
        if self.p == 2:
            return (end - start) * ((end - other) + (start - other))
        if self.p == 1:
            # the part of the way behind the other point, less that before it
            turn = other.clip(start, end)
            return (end - turn) - (turn - start)
        return self.at(end, other) - self.at(start, other)


@shown
class Product(NamedTuple):
    """-x y, which is half of |x - y|^2 but for what no plan changes."""

    def at(self, x: Numbers, y: Numbers) -> Numbers:
        """Return what pairs cost."""
        return -x * y

    def rise(self, start: Numbers, end: Numbers, other: Numbers) -> Numbers:
        """Return the difference of two costs."""
        return (start - end) * other
