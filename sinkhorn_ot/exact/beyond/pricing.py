"""A look at all pairs: the row potentials that target potentials allow, and who undercuts them."""

from typing import NamedTuple

import numpy as np
import torch

from sinkhorn_ot.problem import Cost, shown

from .budget import Budget
from .entries import Array, Places, digits, margins, read
from .pairs import Pairs


@shown
class Look(NamedTuple):
    """What a look at all pairs tells.

    Attributes:
        f: Source potentials, (n,): f_i + g_j <= C_ij for all pairs, to the last digit.
        pairs: Those that were found.
    """

    f: Array
    pairs: Pairs


@shown
class Prices:
    """Looks at the pairs of one problem again and again."""

    def __init__(self, cost: Cost, budget: Budget) -> None:
        """Begin; what rounding adds to costs is known once."""
        self.cost = cost
        self._budget = budget
        self.sizes, digit = margins(cost), digits(cost)
        self._rows, self._columns = (digit * t for t in self.sizes)

    def below(self, low: float) -> float:
        """Return what no pair costs less than, however it is rounded."""
        off = float(self._rows.max() + self._columns.max())
        return float(np.nextafter(low - off, -np.inf))

    def looked(self, g: Array, most: int, below: Array | None = None) -> Look:
        """Look at all pairs, a block of rows at a time.

        Args:
            g: Target potentials, (m,); -inf binds nobody.
            most: How many pairs of a row are taken, those with the least C_ij - g_j.
            below: What C_ij - g_j must be less than to be taken, (n,); None takes all.
        """
        n, m = self.cost.shape
        on = self.cost.device
        t = torch.from_numpy(g + self._columns).to(on)
        limit = None if below is None else torch.from_numpy(below).to(on)
        low = torch.empty(n, dtype=torch.float64, device=on)
        # what is kept stands in one place: memory between blocks that come and go would be torn
        column = torch.full((n, most := min(most, m)), -1, device=on)
        cost = torch.empty((n, most), dtype=torch.float64, device=on)
        numbers = torch.arange(n, device=on)
        for rows, C in read(self.cost):
            self._budget.look()
            R = C - t
            low[rows] = least = R.amin(-1)
            i = numbers[rows]
            bound = R.new_tensor(torch.inf)
            if limit is not None:
                some = (least < limit[rows]).nonzero()[:, 0]
                if len(some) == 0:
                    continue
                i, bound, C, R = i[some], limit[rows][some, None], C[some], R[some]
            value, j = R.topk(most, -1, largest=False, sorted=False)
            column[i], cost[i] = torch.where(value < bound, j, -1), C.gather(-1, j)
        kept = column >= 0
        found = kept.nonzero()[:, 0], column[kept], cost[kept]
        f = _down(low.cpu().numpy() - self._rows)
        return Look(f, Pairs(*(t.cpu().numpy() for t in found)))

    def answered(self, f: Array, columns: Places) -> Array:
        """Return the potentials that some columns may have beside f, (k,), to the last digit."""
        on = self.cost.device
        at, t = torch.from_numpy(columns).to(on), torch.from_numpy(f + self._rows).to(on)
        low = torch.full((len(columns),), torch.inf, dtype=torch.float64, device=on)
        for rows, C in read(self.cost, columns=at):
            self._budget.look()
            low = torch.minimum(low, (C - t[rows, None]).amin(0))
        return _down(low.cpu().numpy() - self._columns[columns])


def _down(low: Array) -> Array:
    """Return numbers a digit lower, which no rounding of a difference is; zero for what is free."""
    # a difference of nothing is exact
    return np.where(np.isfinite(low) & (low != 0), np.nextafter(low, -np.inf), 0.0)
