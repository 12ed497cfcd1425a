"""Repair of a labelling with wrong counts that loses something: each sample goes straight.

From labels with too many to labels with too few, cheapest first. Over ranks each tells the others
of those of its samples that may go, which are no more than are too many.
"""

import numpy as np

from sinkhorn_ot.sweeps import ALONE, Ranks

from .exchange import TILE, Floats, Index, Mask


Moves = tuple[Floats, Index, Index]


def send_directly(S: Floats, labels: Index, excess: Index, ranks: Ranks = ALONE) -> bool:
    """Send samples from labels with too many straight to labels with too few, cheapest first.

    Args:
        S: Scores of this rank's samples, (N, K); -inf forbids.
        labels: A label for each of them, (N,); changed in place.
        excess: Samples of all ranks that each label has too many, (K,), of sum zero; changed in
            place.
        ranks: Who holds the other samples.

    Returns:
        Whether all counts came right; forbidden pairs may stop it.
    """
    samples = np.flatnonzero(excess[labels] > 0)
    to, loss = np.zeros_like(samples), np.zeros(len(samples))
    stale = np.ones(len(samples), bool)
    while len(needy := np.flatnonzero(excess < 0)):
        to[stale], loss[stale] = _nearest(S, samples[stale], labels, needy)
        order = np.argsort(loss, kind="stable")[: np.isfinite(loss).sum()]
        old = labels[samples[order]]
        # no label gives more than it has too many
        order = order[_rank(old) < excess[old]]
        said = ranks.told((loss[order], labels[samples[order]], to[order]))
        before = sum(len(losses) for losses, _, _ in said[: ranks.rank])
        fits = _fitting(said, excess)
        if not fits.any():
            return False
        own = order[fits[before : before + len(order)]]
        labels[samples[own]] = to[own]
        left = excess[labels[samples]] > 0
        samples, to, loss = samples[left], to[left], loss[left]
        stale = excess[to] >= 0
    return True


def _fitting(said: list[Moves], excess: Index) -> Mask:
    """Return which moves of all ranks are made, one rank's after the other's; correct `excess`."""
    loss, old, new = (np.concatenate(part) for part in zip(*said, strict=True))
    order = np.argsort(loss, kind="stable")
    order = order[_rank(old[order]) < excess[old[order]]]
    order = order[_rank(new[order]) < -excess[new[order]]]
    excess += np.bincount(new[order], minlength=len(excess))
    excess -= np.bincount(old[order], minlength=len(excess))
    fits = np.zeros(len(loss), bool)
    fits[order] = True
    return fits


def _nearest(S: Floats, samples: Index, labels: Index, needy: Index) -> tuple[Index, Floats]:
    """Return which of the labels `needy` each sample loses least by going to, and the loss."""
    to, loss = np.empty_like(samples), np.empty(len(samples))
    step = max(1, TILE // len(needy))
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
