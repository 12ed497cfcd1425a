"""The problem on few pairs: what they cost beside potentials, in units of what is left of it."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sinkhorn_ot.problem import shown

from .entries import Array
from .pairs import Pairs, sharpened, simplex


Mask = npt.NDArray[np.bool_]

# what the simplex takes for rounding, per point, and the share of pairs that cost less than a unit
_LOST, _UNIT = 1e-13, 0.8
# costs in units beyond which pairs are left out of a closer look
_CAP = 1e4
# what a forbidden pair costs beside all others, at first and as it grows
_PRICE = 1e3


@shown
@dataclass(frozen=True, eq=False)
class Few:
    """Some pairs of a problem, and where the simplex begins.

    Costs are taken beside potentials, so that none of their digits goes to what all plans pay.

    Attributes:
        pairs: The pairs, in order.
        f: Source potentials, (n,).
        g: Target potentials, (m,); -inf for points without weight.
        unit: What costs are divided by.
        start: Potentials to begin with beside those, in units; none at first.
        price: What a forbidden pair costs beside all others.
    """

    pairs: Pairs
    f: Array
    g: Array
    unit: float
    start: tuple[Array, ...] = ()
    price: float = _PRICE

    @classmethod
    def of(cls, pairs: Pairs, f: Array, g: Array) -> "Few":
        """Return pairs beside feasible potentials."""
        rest = pairs.beside(f, g)
        rest = rest[np.isfinite(rest)]
        unit = float(np.quantile(rest, _UNIT)) if len(rest) else 0.0
        return cls(pairs, f, g, unit or float(rest.max(initial=0.0)) or 1.0)

    @property
    def lost(self) -> float:
        """What potentials may lose by rounding."""
        return _LOST * (len(self.f) + len(self.g)) * self.unit

    def solved(self, a: Array, b: Array, limit: int) -> "Solved":
        """Return the best plan that uses these pairs only.

        Args:
            a: Source weights of mass one, (n,).
            b: Target weights of the same mass, (m,).
            limit: Pivots at most.
        """
        rest = self.pairs.beside(self.f, self.g) / self.unit
        allowed = np.isfinite(rest)
        rest[~allowed] = self.price * max(1.0, rest.max(where=allowed, initial=0.0))
        flow = simplex(a, b, self.pairs, rest, limit, self.start)
        mass = np.zeros(len(self.pairs))
        mass[self.pairs.places(flow.i, flow.j, len(b))] = flow.mass
        return Solved(self, mass, flow.f, flow.g, flow.finished)

    def grown(self, new: Pairs, answer: "Solved", most: int) -> "Few":
        """Return these pairs and new ones; where that is too many, those that cost most are left.

        Args:
            new: Pairs that undercut the potentials, none of them here.
            answer: The plan here, whose pairs stay.
            most: How many there may be.
        """
        pairs = self.pairs
        if len(pairs) + len(new) > most:
            rest = np.where(answer.used, -np.inf, pairs.beside(*answer.potentials))
            room = max(int(answer.used.sum()), most - len(new))
            pairs = pairs.kept(np.sort(np.argsort(rest, kind="stable")[:room]))
            new = new.kept(slice(most - len(pairs)))
        pairs = pairs.joined(new, len(self.g))
        return replace(self, pairs=pairs, start=(answer.f, answer.g))

    def dearer(self, answer: "Solved") -> "Few":
        """Return the same with a price of forbidden pairs that is farther above all others."""
        return replace(self, price=self.price * _PRICE, start=(answer.f, answer.g))

    def closer(self, f: Array, g: Array, answer: "Solved", slack: float) -> "Few":
        """Return a closer look at what is left beside other potentials, feasible ones.

        Args:
            f: Source potentials.
            g: Target potentials.
            answer: The plan here, whose pairs stay.
            slack: What they leave between it and them.
        """
        rest = self.pairs.beside(f, g)
        unit = slack * (len(f) + len(g)) or self.unit
        kept = answer.used | (rest <= _CAP * unit)
        return Few(self.pairs.kept(kept), f, g, unit)


@shown
@dataclass(frozen=True, eq=False)
class Solved:
    """The best plan of few pairs.

    Attributes:
        few: The pairs.
        mass: What each of them moves, (K,).
        f: Source potentials beside those of the pairs, in units, (n,).
        g: Target potentials likewise, (m,).
        finished: Whether the simplex was.
    """

    few: Few
    mass: Array
    f: Array
    g: Array
    finished: bool

    @property
    def used(self) -> Mask:
        """Which pairs move mass, (K,)."""
        used: Mask = self.mass > 0
        return used

    @property
    def potentials(self) -> tuple[Array, Array]:
        """Potentials in units of the cost, (n,) and (m,); -inf for targets without weight."""
        few = self.few
        return few.f + few.unit * self.f, few.g + few.unit * self.g

    @property
    def sharp(self) -> tuple[Array, Array]:
        """The same, with their last digits where the plan or ties tell them."""
        f, g = self.potentials
        bare = np.isneginf(g)
        f, g = sharpened(self.few.pairs, self.used, f, np.where(bare, 0.0, g), self.few.lost)
        return f, np.where(bare, -np.inf, g)
