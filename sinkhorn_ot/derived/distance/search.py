"""Which reg next: how the divergence grows along the entropic path, and where it reaches alpha."""

import math
from dataclasses import dataclass


# the most that one step multiplies or divides theta by
_FAR = 4.0


@dataclass(frozen=True)
class Point:
    """A place on the path.

    Attributes:
        theta: 1 / reg.
        rise: KL(P | a b^T) above the least that there is.
        slope: d rise / d theta.
    """

    theta: float
    rise: float
    slope: float

    @property
    def climb(self) -> float:
        """The slope in log theta."""
        return self.theta * self.slope


class Search:
    """The search for the theta at which the divergence has risen by `target`.

    Attributes:
        theta: Where to look now.
        ends: Whether the path seems to end before it.
    """

    def __init__(self, target: float, variance: float, most: float) -> None:
        """Begin where the divergence would be right if it stayed theta^2 variance / 2.

        Args:
            target: Rise of the divergence that is sought.
            variance: Of the cost at the least divergence.
            most: theta beyond which rounding decides.
        """
        self._target, self._most = target, most
        self._low, self._high = 0.0, math.inf
        self._width = self._miss = math.inf
        self._last: Point | None = None
        self.theta = min(math.sqrt(2 * target / variance), most)
        self.ends = False

    def look(self, here: Point) -> float:
        """Take in what is at theta, move it, and return by how much, in log theta."""
        if here.rise <= self._target:
            self._low = max(self._low, here.theta)
        else:
            self._high = min(self._high, here.theta)
        if not self._low < (1 - 1e-12) * self._high:
            # what was measured loosely was on the wrong side
            self._low, self._high = 0.0, math.inf
            self._width = self._miss = math.inf
        step, self.ends = _step(self._last, here, self._target)
        far = math.log(_FAR)
        theta = here.theta * math.exp(min(max(step, -far), far))
        if self._low > 0 and self._high < math.inf:
            # after a step that halved neither what is missed nor where it may be: in the middle
            width, miss = math.log(self._high / self._low), abs(here.rise - self._target)
            crawls = width > self._width / 2 and miss > self._miss / 2
            if crawls or not self._low < theta < self._high:
                theta = math.sqrt(self._low * self._high)
            self._width, self._miss = width, miss
        self._last, self.theta = here, min(theta, self._most)
        return math.log(self.theta / here.theta)

    @property
    def at_end(self) -> bool:
        """Whether theta can grow no more."""
        return self.theta >= self._most


def _step(before: Point | None, here: Point, target: float) -> tuple[float, bool]:
    """Return how far in log theta the target is, and whether the path seems to end below it.

    The curve is A - B theta^-p through both slopes: p = -2 where the path begins, and larger than
    zero where it saturates. After a first look it is a power of theta.
    """
    if here.climb <= 0 or here.rise <= 0:
        return math.inf, here.rise > 0
    if before is None or before.climb <= 0 or before.theta == here.theta:
        return math.log(target / here.rise) * here.rise / here.climb, False
    p = math.log(before.climb / here.climb) / math.log(here.theta / before.theta)
    share = p * (target - here.rise) / here.climb
    if share >= 1:
        return math.inf, True
    if abs(share) < 1e-9:
        return (target - here.rise) / here.climb, False
    return -math.log1p(-share) / p, False
