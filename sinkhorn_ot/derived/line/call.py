"""solve_1d(): exact transport of weighted points on a line or a circle."""

import math
from typing import Any

from sinkhorn_ot.problem import ArrayLike, checks
from sinkhorn_ot.results import uncompiled

from .circle import on_circle
from .measures import measures
from .result import LineTransport
from .ways import on_line


# what costs of float64 may be at most: sums of them are numbers
_LARGEST = 1e150


@uncompiled
def solve_1d(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    p: float = 2,
    period: float | None = None,
) -> LineTransport:
    """Move weighted points on a line, or on a circle, at the least cost: |x - y| ** p, exactly.

    On a line the plan keeps the order of points, and is found by sorting both sides. On a circle,
    where a distance is the shorter way round, it does too, once the circle is cut at the best
    place. Either takes O((n + m) log(n + m)) time, in float64 on the device of the points.

    Source: on a circle J. Delon, J. Salomon, A. Sobolevskii, Fast transport optimization for Monge
    costs on the circle, 2010; for p = 1, J. Rabin, J. Delon, Y. Gousseau, Transportation distances
    on the circle, 2011.

    Args:
        x: Source points, (..., n). Leading dimensions are a batch, and broadcast.
        y: Target points, (..., m).
        a: Source weights, (..., n); None means 1/n each.
        b: Target weights, (..., m), of the same total; None means 1/m each.
        p: The power of the distance that moving costs, at least 1: below, the best plan need not
            keep the order.
        period: How long the circle is, in units of the points; None is a line. Points beyond it
            are taken round.

    Returns:
        Value, distance, plan and potentials. The value has derivatives by points and weights where
        these require grad, of any order; so have the potentials, by points.

    Raises:
        ValueError: If an argument breaks a rule.
    """
    p = power(p)
    period = None if period is None else checks.positive("period", period)
    given = measures(x, y, a, b)
    affordable(given.reach if period is None else period, p)
    way = on_line(given) if period is None else on_circle(given, p, period)
    return LineTransport(given, way, p, period)


def power(p: Any) -> float:
    """Require a power for which costs are convex."""
    found = checks.number("p", p)
    if not 1 <= found < math.inf:
        raise ValueError(
            f"p must be a finite number of at least 1, got {p!r}: below 1 costs are not "
            "convex, and the best plan need not keep the order of points"
        )
    return found


def affordable(reach: float, p: float) -> None:
    """Require costs that float64 holds, and sums of them."""
    if reach > 1 and p * math.log(reach) > math.log(_LARGEST):
        raise ValueError(
            f"x and y must have costs below {_LARGEST:g}, got {reach:.3g} ** {p:g}: scale them"
        )
