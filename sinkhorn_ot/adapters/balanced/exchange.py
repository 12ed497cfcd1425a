"""Repair of a labelling with wrong counts: samples change hands along shortest paths of labels.

The step from label j to label k moves the sample of j that loses least, S_ij - S_ik. While every
sample has its best label of S + prices, steps cost nothing less than the difference of the prices,
and shortest paths from labels with too many samples to labels with too few are what an optimal
repair needs (successive shortest paths, as in R. Ahuja, T. Magnanti, J. Orlin, Network Flows, 1993,
9.7). Each round pushes samples along the paths to all labels in need, not to the nearest only.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt


Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# scores looked at together
_TILE = 1 << 20
# losses closer than this, relative to scores and prices, are equal
_DIGITS = 8 * float(np.finfo(np.float64).eps)


class Exchange:
    """A labelling, and the graph of labels in which samples change hands.

    One node beyond the labels, the pool, deals places: the step from a label into it takes a place
    above the label's count, the step out of it gives one up, and both cost nothing.

    Args:
        S: Scores, (N, K); -inf forbids.
        labels: A label for each sample, (N,); changed in place.
        counts: Samples that each label must have, without a dealt place, (K,).
        dealt: Which labels have a dealt place, (K,).
        prices: Prices of the labels, (K,), under which every sample has its best label, and no
            label that could have a dealt place and has none is cheaper than one with.
        largest: The largest absolute value of a finite score.
        fixed: Which labels may be dealt no place, (K,).
    """

    def __init__(  # noqa: PLR0913
        self,
        S: Floats,
        labels: Index,
        counts: Index,
        dealt: Mask,
        prices: Floats,
        largest: float,
        fixed: Mask | None = None,
    ) -> None:
        self._S, self.labels, self.dealt = S, labels, dealt
        self._fixed = np.zeros_like(dealt) if fixed is None else fixed
        K = len(counts)
        order = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels, minlength=K)
        self._members = np.split(order, np.cumsum(sizes)[:-1])
        # the pool has no samples of its own
        self._excess = np.r_[sizes - counts - dealt, 0]
        self._loss = np.full((K, K), np.inf)
        # steps whose cheapest sample went away
        self._stale = np.ones((K, K), bool)
        self._prices = np.r_[prices, prices[dealt].max(initial=prices.min())]
        self._largest, self._digit = largest, 0.0

    @property
    def prices(self) -> Floats:
        """Prices of the labels, (K,)."""
        labels: Floats = self._prices[:-1]
        return labels

    @property
    def misplaced(self) -> int:
        """Samples that labels have beyond their count."""
        return int(self._excess.clip(0).sum())

    def stranded(self) -> tuple[Index, int]:
        """Return labels whose samples may go to no label outside, and how many are too many."""
        way, _ = self._paths()
        closed = np.flatnonzero(np.isfinite(way[:-1]))
        return closed, int(self._excess[closed].sum())

    def repair(self, told: Callable[[int], None]) -> bool:
        """Push samples until every count is right; return whether that was possible.

        Args:
            told: Called with the samples still misplaced after every round.
        """
        while self.misplaced:
            way, parent = self._paths()
            reached = np.isfinite(way)
            needy = np.flatnonzero((self._excess < 0) & reached)
            if len(needy) == 0:
                return False
            self._prices += np.where(reached, way, way[reached].max())
            self._digit = _DIGITS * max(self._largest, float(np.abs(self._prices).max()))
            for sink in needy[np.argsort(way[needy], kind="stable")].tolist():
                self._push(sink, parent)
            told(self.misplaced)
        return True

    def _paths(self) -> tuple[Floats, Index]:
        """Return how far each node is from the labels with too many, and the node before it.

        Lengths are what steps cost beyond the difference of the prices: none is negative, so that
        no path runs in a circle, whatever is rounded.
        """
        for j in np.flatnonzero(self._stale.any(1)).tolist():
            to = np.flatnonzero(self._stale[j])
            self._loss[j, to] = self._cheapest(j, self._members[j], to)
        self._stale[:] = False
        held = np.array([len(members) > 0 for members in self._members])
        p = self._prices
        way = np.full(len(p), np.inf)
        parent = np.full(len(p), -1)
        moved = np.flatnonzero(self._excess > 0)
        way[moved] = 0.0
        while len(moved):
            steps = self._loss[moved] + p[moved, None]
            steps -= p[:-1]
            through = np.maximum(steps, 0.0, out=steps)
            through += way[moved, None]
            closer = through.min(0)
            better = np.flatnonzero(closer < way[:-1])
            way[better], parent[better] = closer[better], moved[through[:, better].argmin(0)]
            moved = np.r_[better, self._through_pool(way, parent)]
            moved = moved[held[moved]]
        return way, parent

    def _through_pool(self, way: Floats, parent: Index) -> Index:
        """Let the pool and those behind it come closer; return the labels that did."""
        pool, may = len(self.dealt), ~(self.dealt | self._fixed)
        givers, takers = np.flatnonzero(self.dealt), np.flatnonzero(may)
        if len(givers) == 0 or len(takers) == 0:
            return givers[:0]
        p = self._prices
        into = way[takers] + np.maximum(p[takers] - p[pool], 0.0)
        if into.min() < way[pool]:
            way[pool], parent[pool] = into.min(), takers[into.argmin()]
        out = way[pool] + np.maximum(p[pool] - p[givers], 0.0)
        better = out < way[givers]
        way[givers[better]], parent[givers[better]] = out[better], pool
        closer: Index = givers[better]
        return closer

    def _cheapest(self, j: int, samples: Index, to: Index) -> Floats:
        """Return the least S_ij - S_ik over these samples of j for labels k; inf for j itself."""
        loss = np.full(len(to), np.inf)
        step = max(1, _TILE // len(loss))
        whole = 2 * len(to) > self._S.shape[1]
        for start in range(0, len(samples), step):
            few = samples[start : start + step]
            rows = self._S[few][:, to] if whole else self._S[few[:, None], to]
            rows = rows.astype(np.float64, copy=False)
            own = self._S[few, j].astype(np.float64, copy=False)
            np.minimum(loss, (own[:, None] - rows).min(0), out=loss)
        loss[to == j] = np.inf
        return loss

    def _push(self, sink: int, parent: Index) -> None:
        """Move as many samples towards `sink` as its path still takes at the same loss."""
        path = [sink]
        while (before := int(parent[path[-1]])) >= 0:
            path.append(before)
        steps = list(zip(path[1:], path, strict=False))
        movable = [self._movable(j, k) for j, k in steps]
        room = min(self._excess[path[-1]], -self._excess[sink])
        amount = min(room, *map(len, movable))
        if amount <= 0:
            return
        for (j, k), samples in zip(steps, movable, strict=True):
            self._step(j, k, samples[:amount])
        self._excess[path[-1]] -= amount
        self._excess[sink] += amount

    def _movable(self, j: int, k: int) -> Index:
        """Return the samples of j that lose no more by going to k than the prices say."""
        pool = len(self.dealt)
        if pool in (j, k):
            free = self.dealt[k] if j == pool else not self.dealt[j]
            return np.zeros(int(free), np.int64)
        members = self._members[j]
        S = self._S
        loss = S[members, j].astype(np.float64) - S[members, k]
        movable: Index = members[loss <= self._prices[k] - self._prices[j] + self._digit]
        return movable

    def _step(self, j: int, k: int, samples: Index) -> None:
        pool = len(self.dealt)
        if k == pool:
            self.dealt[j] = True
        elif j == pool:
            self.dealt[k] = False
        else:
            everywhere = np.arange(len(self.dealt))
            # what was cheapest by others still is
            self._stale[j] |= self._cheapest(j, samples, everywhere) <= self._loss[j]
            self.labels[samples] = k
            left = self._members[j]
            self._members[j] = left[self.labels[left] == j]
            self._members[k] = np.concatenate([self._members[k], samples])
            self._loss[k] = np.minimum(self._loss[k], self._cheapest(k, samples, everywhere))


def send_directly(S: Floats, labels: Index, excess: Index) -> bool:
    """Send samples from labels with too many straight to labels with too few, cheapest first.

    Args:
        S: Scores, (N, K); -inf forbids.
        labels: A label for each sample, (N,); changed in place.
        excess: Samples that each label has too many, (K,), of sum zero; changed in place.

    Returns:
        Whether all counts came right; forbidden pairs may stop it.
    """
    samples = np.flatnonzero(excess[labels] > 0)
    to, loss = np.zeros_like(samples), np.zeros(len(samples))
    stale = np.ones(len(samples), bool)
    while len(needy := np.flatnonzero(excess < 0)):
        to[stale], loss[stale] = _nearest(S, samples[stale], labels, needy)
        order = np.argsort(loss, kind="stable")[: np.isfinite(loss).sum()]
        old, new = labels[samples[order]], to[order]
        fits = (_rank(old) < excess[old]) & (_rank(new) < -excess[new])
        if not fits.any():
            return False
        labels[samples[order[fits]]] = new[fits]
        excess += np.bincount(new[fits], minlength=len(excess))
        excess -= np.bincount(old[fits], minlength=len(excess))
        left = excess[labels[samples]] > 0
        samples, to, loss = samples[left], to[left], loss[left]
        stale = excess[to] >= 0
    return True


def _nearest(S: Floats, samples: Index, labels: Index, needy: Index) -> tuple[Index, Floats]:
    """Return which of the labels `needy` each sample loses least by going to, and the loss."""
    to, loss = np.empty_like(samples), np.empty(len(samples))
    step = max(1, _TILE // len(needy))
    for start in range(0, len(samples), step):
        rows = samples[start : start + step]
        there = S[rows[:, None], needy].astype(np.float64, copy=False)
        best = there.argmax(1)
        to[start : start + step] = needy[best]
        own = S[rows, labels[rows]].astype(np.float64, copy=False)
        loss[start : start + step] = own - there[np.arange(len(rows)), best]
    return to, loss


def _rank(group: Index) -> Index:
    """Return how many entries before each one are of its group."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    rank = np.empty_like(group)
    rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank
