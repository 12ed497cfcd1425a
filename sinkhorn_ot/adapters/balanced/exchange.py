"""Repair of a labelling with wrong counts: samples change hands along shortest paths of labels.

The step from label j to label k moves the sample of j that loses least, S_ij - S_ik. While every
sample has its best label of S + prices, steps cost nothing less than the difference of the prices,
and shortest paths from labels with too many samples to labels with too few are what an optimal
repair needs (successive shortest paths, as in R. Ahuja, T. Magnanti, J. Orlin, Network Flows, 1993,
9.7). Each round pushes samples along the paths to all labels in need, not to the nearest only.

Over ranks each holds its samples and looks for the cheapest of them; what a round decides it
decides from the cheapest of all ranks and from how many samples each offers to a step.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from sinkhorn_ot.sweeps import ALONE, Ranks


Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# scores looked at together
TILE = 1 << 20
# losses closer than this, relative to scores and prices, are equal
_DIGITS = 8 * float(np.finfo(np.float64).eps)


class Exchange:
    """A labelling, and the graph of labels in which samples change hands.

    One node beyond the labels, the pool, deals places: the step from a label into it takes a place
    above the label's count, the step out of it gives one up, and both cost nothing.

    Args:
        S: Scores of this rank's samples, (N, K); -inf forbids.
        labels: A label for each of them, (N,); changed in place.
        counts: Samples of all ranks that each label must have, without a dealt place, (K,).
        dealt: Which labels have a dealt place, (K,).
        prices: Prices of the labels, (K,), under which every sample has its best label, and no
            label that could have a dealt place and has none is cheaper than one with.
        largest: The largest absolute value of a finite score.
        fixed: Which labels may be dealt no place, (K,).
        ranks: Who holds the other samples.
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
        ranks: Ranks = ALONE,
    ) -> None:
        self._S, self.labels, self.dealt = S, labels, dealt
        self._fixed = np.zeros_like(dealt) if fixed is None else fixed
        self._ranks = ranks
        K = len(counts)
        order = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels, minlength=K)
        self._members = np.split(order, np.cumsum(sizes)[:-1])
        self._sizes = ranks.sum(torch.from_numpy(sizes)).numpy()
        # the pool has no samples of its own
        self._excess = np.r_[self._sizes - counts - dealt, 0]
        # the least of this rank, and of all
        self._own = np.full((K, K), np.inf)
        self._loss = self._own if ranks.alone else self._own.copy()
        # steps whose cheapest sample went away, and labels with another loss than others know
        self._stale, self._changed = np.ones((K, K), bool), np.ones(K, bool)
        # which samples are offered to a step
        self._offered = np.zeros(len(labels), bool)
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
            self._push(needy[np.argsort(way[needy], kind="stable")].tolist(), parent.tolist())
            told(self.misplaced)
        return True

    def _paths(self) -> tuple[Floats, Index]:
        """Return how far each node is from the labels with too many, and the node before it.

        Lengths are what steps cost beyond the difference of the prices: none is negative, so that
        no path runs in a circle, whatever is rounded.
        """
        self._look()
        held, p = self._sizes > 0, self._prices
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

    def _look(self) -> None:
        """Find the cheapest samples anew where others went or came."""
        for j in np.flatnonzero(self._stale.any(1)).tolist():
            to = np.flatnonzero(self._stale[j])
            self._own[j, to] = self._cheapest(j, self._members[j], to)
        self._stale[:] = False
        if not self._ranks.alone:
            at = np.flatnonzero(self._changed)
            self._loss[at] = self._ranks.min(torch.from_numpy(self._own[at])).numpy()
        self._changed[:] = False

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
        step = max(1, TILE // len(loss))
        whole = 2 * len(to) > self._S.shape[1]
        for start in range(0, len(samples), step):
            few = samples[start : start + step]
            rows = self._S[few][:, to] if whole else self._S[few[:, None], to]
            rows = rows.astype(np.float64, copy=False)
            own = self._S[few, j].astype(np.float64, copy=False)
            np.minimum(loss, (own[:, None] - rows).min(0), out=loss)
        loss[to == j] = np.inf
        return loss

    def _push(self, sinks: list[int], parent: list[int]) -> None:
        """Move samples towards the sinks, nearest first, as far as their paths take them.

        Args:
            sinks: Labels in need.
            parent: The node before each, on its path; -1 for none.
        """
        paths = [_path(sink, parent) for sink in sinks]
        wanted = [0] * len(parent)
        for sink, path in zip(sinks, paths, strict=True):
            for k in path[:-1]:
                wanted[k] -= int(self._excess[sink])
        # a step is named by where it goes, and the nearest sink's have the first choice
        steps = list(dict.fromkeys(k for path in paths for k in path[:-1]))
        own = {k: self._offers(parent[k], k, wanted[k]) for k in steps}
        self._offered[:] = False
        counts = np.array([[len(own[k]) for k in steps]])
        every = self._ranks.shares(torch.from_numpy(counts[0])).numpy()
        left = dict(zip(steps, every.sum(0).tolist(), strict=True))
        used = dict.fromkeys(steps, 0)
        for sink, path in zip(sinks, paths, strict=True):
            room = min(int(self._excess[path[-1]]), -int(self._excess[sink]))
            amount = max(0, min(room, *(left[k] - used[k] for k in path[:-1])))
            for k in path[:-1]:
                used[k] += amount
            self._excess[path[-1]] -= amount
            self._excess[sink] += amount
        # ranks give what they offered, the first ones first
        before = every[: self._ranks.rank].sum(0)
        for k, first in zip(steps, before.tolist(), strict=True):
            if used[k]:
                self._step(parent[k], k, used[k], own[k][: max(0, used[k] - first)])

    def _offers(self, j: int, k: int, most: int) -> Index:
        """Return this rank's samples of j that lose no more by going to k than the prices say.

        Args:
            j: Where from.
            k: Where to.
            most: How many are of use.
        """
        pool = len(self.dealt)
        if pool in (j, k):
            free = self.dealt[k] if j == pool else not self.dealt[j]
            # a place is everybody's, and the first rank's to give
            return np.zeros(int(free and self._ranks.rank == 0), np.int64)
        members = self._members[j]
        S = self._S
        loss = S[members, j].astype(np.float64) - S[members, k]
        movable = members[loss <= self._prices[k] - self._prices[j] + self._digit]
        offers: Index = movable[~self._offered[movable]][:most]
        self._offered[offers] = True
        return offers

    def _step(self, j: int, k: int, amount: int, samples: Index) -> None:
        """Move samples of all ranks, so many, and these of this one from j to k."""
        pool = len(self.dealt)
        if k == pool:
            self.dealt[j] = True
        elif j == pool:
            self.dealt[k] = False
        else:
            self._sizes[j] -= amount
            self._sizes[k] += amount
            self._changed[[j, k]] = True
            if len(samples) == 0:
                return
            everywhere = np.arange(len(self.dealt))
            # what was cheapest by others still is
            self._stale[j] |= self._cheapest(j, samples, everywhere) <= self._own[j]
            self.labels[samples] = k
            left = self._members[j]
            self._members[j] = left[self.labels[left] == j]
            self._members[k] = np.concatenate([self._members[k], samples])
            self._own[k] = np.minimum(self._own[k], self._cheapest(k, samples, everywhere))


def _path(sink: int, parent: list[int]) -> list[int]:
    """Return the nodes from a sink back to where its path begins."""
    path = [sink]
    while (before := parent[path[-1]]) >= 0:
        path.append(before)
    return path
