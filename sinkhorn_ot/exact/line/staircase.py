"""The plan that keeps the order of points on a line, as a way of n + m - 1 steps, and its duals.

Both marginals, as running sums, are merged: between one sum and the next all mass goes from one
point to one point. The pairs in turn lead from the first points to the last, one step of one side
at a time (the north-west corner rule of sorted points). So they are a spanning tree, along which
f_i + g_j = C_ij gives potentials, and where the cost is Monge's these are feasible.

Source: A. Hoffman, On simple linear programming problems, 1963.
"""

from typing import NamedTuple

from torch import Tensor

from sinkhorn_ot.problem import shown

from .arrays import (
    Numbers,
    counted,
    counting,
    gaps,
    joined,
    like,
    merged,
    put,
    summed,
    taken,
    where,
)
from .costs import Cost


# running sums of weights, and maybe what rounding took from them
Sums = tuple[Numbers, ...]


@shown
class Stairs(NamedTuple):
    """A plan between sorted points of a batch.

    Attributes:
        sizes: How many points there are, n and m.
        i: Places of source points, in order, (B, K), K = n + m - 1.
        j: Places of target points, (B, K).
        mass: What moves from i to j, (B, K): zero where both sides step at once.
        right: Whether the step from one pair to the next is one of the target, (B, K - 1).
        order: Where each step belongs among those of the sources, then of the targets, (B, K - 1).
    """

    sizes: tuple[int, int]
    i: Numbers
    j: Numbers
    mass: Numbers
    right: Numbers
    order: Numbers

    def between(self, a: Numbers, b: Numbers) -> "Stairs":
        """Return the plan without what rounding left to points without weight.

        Args:
            a: Source weights in order, (B, n).
            b: Target weights in order, (B, m).
        """
        if not isinstance(a, Tensor) and (a > 0).all() and (b > 0).all():
            return self
        both = (taken(a, self.i) > 0) & (taken(b, self.j) > 0)
        return self._replace(mass=where(both, self.mass, 0 * self.mass))

    def along(self, cost: Cost, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """Return potentials with f_i + g_j = c(x_i, y_j) for all pairs of the way, and f_0 = 0.

        Args:
            cost: What pairs cost.
            x: Source points in order, (B, n).
            y: Target points in order, (B, m).
        """
        f, g = (summed(rise) for rise in self.rises(cost, x, y))
        none = 0 * x[:, :1]
        return joined(none, f[0] + f[1]), cost.at(x[:, :1], y[:, :1]) + joined(none, g[0] + g[1])

    def rises(self, cost: Cost, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """Return by how much they grow from point to point, (B, n - 1) and (B, m - 1)."""
        i, j, right, order = (like(x, t) for t in (self.i, self.j, self.right, self.order))
        x, y = taken(x, i), taken(y, j)
        start = where(right, y[:, :-1], x[:, :-1])
        end = where(right, y[:, 1:], x[:, 1:])
        other = where(right, x[:, 1:], y[:, 1:])
        steps, n = put(cost.rise(start, end, other), order), self.sizes[0]
        return steps[:, : n - 1], steps[:, n - 1 :]


def stairs(left: Sums, right: Sums) -> Stairs:
    """Return the plan between sorted points; where both sides step at once, the sources do first.

    Args:
        left: Running sums of the source weights, (B, n).
        right: Running sums of the target weights, (B, m), of the same total.
    """
    n, m = left[0].shape[1], right[0].shape[1]
    runs = [joined(s[:, :-1], t[:, :-1]) for s, t in zip(left, right, strict=True)]
    order = merged(runs[0])
    mass = gaps(taken(runs[0], order), left[0][:, -1:])
    for run, ends in zip(runs[1:], left[1:], strict=True):
        mass += gaps(taken(run, order), ends[:, -1:])
    forth = order >= n - 1
    j = counted(forth, order)
    # the last digit may tell sums apart that are equal
    return Stairs((n, m), counting(j, n + m - 1) - j, j, mass.clip(0), forth, order)
