"""What a search may take: time, which is looked at again and again, and memory."""

import time
from dataclasses import dataclass, field

from sinkhorn_ot.problem import shown

from .entries import TILE


# bytes that a pair takes in the simplex and beside it, and that a point does
PAIR, POINT = 160, 400
# what is held where nobody says otherwise, and pairs of a point that are always held
_MEMORY, _PAIRS = 1 << 30, 64
# numbers of a block that are held at once
_COPIES = 4


class Spent(Exception):
    """There is no time left."""


@shown
@dataclass(frozen=True)
class Budget:
    """What a search may take.

    Attributes:
        memory: Bytes that may be held beside the cost; None for what is asked of nobody.
        seconds: Seconds it may take; None for as long as it takes.
        begun: When it began.
    """

    memory: int | None = None
    seconds: float | None = None
    begun: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Raise `Spent` once time is over."""
        if self.seconds is not None and time.monotonic() - self.begun > self.seconds:
            raise Spent

    def pairs(self, n: int, m: int) -> int:
        """Return how many pairs may be held.

        Raises:
            ValueError: If a block of pairs and a plan take more.
        """
        points, least = n + m, 8 * _COPIES * max(TILE, m) + (POINT + 2 * PAIR) * (n + m)
        if self.memory is None:
            return max(_MEMORY // PAIR, _PAIRS * points)
        if self.memory < least:
            raise ValueError(
                f"memory must be at least {least} bytes, for a block of pairs and a plan of {n} x "
                f"{m} points, got {self.memory}"
            )
        return 2 * points + (self.memory - least) // PAIR

    @property
    def matrix(self) -> int:
        """Entries of a matrix of fewer points that may be held."""
        return (_MEMORY if self.memory is None else self.memory) // 32
