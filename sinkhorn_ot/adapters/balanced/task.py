"""One problem of labels in exact counts: prices, a repair, and what they prove."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks, needs, shown
from sinkhorn_ot.sweeps import Ranks

from .directly import send_directly
from .exchange import Exchange
from .prices import blocks, dual, near, typical_loss


# labels, counts, value, gap, prices and whether they prove it, as in `BalancedLabels`
Answer = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
# a gap, relative to the scores and prices that it is a difference of, that is rounding
_ROUNDING = 64 * torch.finfo(torch.float64).eps

# samples per label, and share of all samples, that the first prices are found with
_SAMPLED = 20
_SHARE = 0.1
# scores below which a sample of them is not worth a solve
_SMALL = 1 << 17
# what each rank tells of how good its samples' best labels are
_TOLD = 1 << 12


@shown
@dataclass(frozen=True, eq=False)
class Task:
    """One problem on the CPU.

    Attributes:
        S: Scores of this rank's samples, (n, K).
        N: Samples of all ranks.
        low: Samples that each label must have, (K,). If that leaves samples over, as many labels
            have one more.
        may: Labels that may have one more, (K,).
        exact: Whether the labelling must be the best one.
        progress: Whether to show progress bars.
        where: Which problem of a batch it is, for errors.
        ranks: Who holds the other samples.
    """

    S: Tensor
    N: int
    low: Tensor
    may: Tensor
    exact: bool
    progress: bool
    where: str
    ranks: Ranks

    @property
    def K(self) -> int:
        """Number of labels."""
        return len(self.low)

    @cached_property
    def left_over(self) -> int:
        """Samples beyond those that labels must have."""
        return self.N - int(self.low.sum())

    def labelled(self, k: int, start: Tensor | None) -> Answer:
        """Return the answer where k samples are to have a label."""
        if self.N == 0:
            zero = torch.zeros((), dtype=torch.float64, device="cpu")
            return self.low.new_empty(0), self.low, zero, zero, zero.expand(self.K), zero == 0
        return self.solved(start) if k == self.N else _some(self, k, start)

    def solved(self, start: Tensor | None) -> Answer:
        """Return the answer where every sample is to have a label."""
        peak = self.ranks.max(_peak(self.S))
        open_ = peak > -math.inf
        if bool((~open_ & (self.low > 0)).any()):
            k = checks.first_index(~open_ & (self.low > 0))[0]
            why = f"label {k} must have {int(self.low[k])} samples and none may take it"
            raise self._impossible(why)
        used = open_ & (self.low > 0) if self.left_over == 0 else open_
        if self.left_over > (places := int((used & self.may).sum())):
            raise self._impossible(f"only {places} labels have places, one each")
        if not bool(used.all()):
            self.ranks.everywhere(lambda: self._require_labels(used), lambda _: None)
            return self._widened(used, start)
        prices = self._prices(start)
        labels, last = self._repaired(prices, float(peak.abs().amax()))
        return self._proved(labels, last if self.exact else prices)

    def _require_labels(self, used: Tensor) -> None:
        """Raise for a sample whose every label stays empty."""
        best = self.S[:, used].amax(1)
        if not bool((best > -math.inf).all()):
            row = checks.first_index(best == -math.inf)[0]
            raise ValueError(
                "scores must allow every sample some label with a count, got -inf all along those "
                f"of row {row}{self.where}"
            )

    def _widened(self, used: Tensor, start: Tensor | None) -> Answer:
        """Solve without the labels that stay empty, then put them back."""
        part = replace(self, S=self.S[:, used], low=self.low[used], may=self.may[used])
        labels, counts, *known = part.solved(None if start is None else start[used])
        value, gap, prices, proved = known
        wide = torch.zeros_like(self.low).masked_scatter_(used, counts)
        shut = prices.new_full(used.shape, -math.inf)
        shut.masked_scatter_(used, prices)
        return used.nonzero()[labels, 0], wide, value, gap, shut, proved

    def _prices(self, start: Tensor | None) -> Tensor:
        """Return prices whose argmax has nearly the counts, (K,)."""
        N, K, ranks = self.N, self.K, self.ranks
        # of samples that get a label
        labelled = 1 - float(self.low[~self.may].sum()) / N
        few = max(round(_SAMPLED * K / labelled), round(_SHARE * N))
        sample, whole = self.S, 2 * few > N or N * K <= _SMALL
        if not whole:
            n = len(sample)
            order = torch.randperm(n, generator=torch.Generator().manual_seed(0), device="cpu")
            sample = sample[order[: round(few * n / N)]]
        reg = typical_loss(sample, ranks)
        if reg == 0 or K == 1:
            return torch.zeros(K, dtype=torch.float64, device="cpu") if start is None else start
        shares = (self.low + self.left_over * self.may / self.may.sum()) / N
        # a label may be closed to the whole sample
        if start is None and (whole or not _forbids(sample, ranks)):
            start = dual(sample, shares, reg, None, self.progress, ranks)
            if whole:
                return start
            if self.exact and (found := near(self.S, shares, reg, start, ranks)) is not None:
                return found
        if start is not None and not self.exact:
            return start
        return dual(self.S, shares, reg, start, self.progress, ranks)

    def _repaired(self, prices: Tensor, largest: float) -> tuple[Tensor, Tensor]:
        """Return labels in the right counts, and the prices that ended there."""
        labels = _best(self.S, prices)
        excess = self._counts(labels) - self.low
        # places go where they are cheapest, or where they save most repairs
        order = prices if self.exact else -excess.double()
        first = order.masked_fill(~self.may, math.inf).argsort()
        dealt = torch.zeros_like(self.low, dtype=torch.bool)
        dealt[first[: self.left_over]] = True
        if not self.exact:
            sent, off = labels.numpy().copy(), (excess - dealt.long()).numpy()
            if send_directly(self.S.numpy(), sent, off, self.ranks):
                return torch.from_numpy(sent), prices
            return replace(self, exact=True)._repaired(prices, largest)
        S, given, places, fixed = (t.numpy() for t in (self.S, labels, dealt, ~self.may))
        known = self.low.numpy(), places, prices.numpy(), largest, fixed
        exchange = Exchange(S, given, *known, self.ranks)
        with _bar(self.progress and self.ranks.rank == 0, exchange.misplaced) as told:
            if not exchange.repair(told):
                closed, many = exchange.stranded()
                named = closed[~fixed[closed]]
                whose = f"the samples of labels {checks.some(named)}"
                if len(named) < len(closed):
                    whose = "samples without a label" if len(named) == 0 else f"{whose} and of none"
                raise self._impossible(f"{whose} may take no other, {many} too many")
        return torch.from_numpy(exchange.labels), torch.from_numpy(exchange.prices)

    def _proved(self, labels: Tensor, prices: Tensor) -> Answer:
        """Return the answer; the gap is what samples and places lose."""
        counts = self._counts(labels)
        value = gap = size = torch.zeros((), dtype=torch.float64, device="cpu")
        for rows, block in blocks(self.S):
            own = labels[rows, None]
            worth = block.gather(1, own)
            value, size = value + worth.sum(), size + worth.abs().sum()
            block += prices
            gap = gap + (block.amax(1) - block.gather(1, own)[:, 0]).sum()
        if not self.ranks.alone:
            value, gap, size = self.ranks.sum(torch.stack([value, gap, size]))
        least = prices[self.may].sort().values[: self.left_over].sum()
        dealt = prices[counts > self.low].sum() - least
        proved = gap + dealt <= _ROUNDING * (size + self.N * prices.abs().max())
        return labels, counts, value, gap + dealt, prices, proved

    def _counts(self, labels: Tensor) -> Tensor:
        """Return how many samples of all ranks have each label, (K,)."""
        return self.ranks.sum(torch.bincount(labels, minlength=self.K))

    def _impossible(self, why: str) -> ValueError:
        return ValueError(f"scores must leave a labelling{self.where}, but {why}")


def _some(task: Task, k: int, start: Tensor | None) -> Answer:
    """Label k samples: the others take one label more, which is worth the same to all of them."""
    S, N, K = task.S, task.N, task.K
    worth = _worth(S, k, task.ranks)
    wide = replace(
        task,
        S=torch.cat([S, worth.expand(len(S), 1)], 1),
        low=torch.cat([task.low, task.low.new_tensor([N - k])]),
        may=torch.cat([task.may, task.may.new_zeros(1)]),
    )
    begin = None if start is None else torch.cat([start, -worth[None].double()])
    labels, counts, _, gap, prices, proved = wide.solved(begin)
    here = labels < K
    value = task.ranks.sum(S[here, labels[here]].double().sum())
    level = prices[K] + worth
    return torch.where(here, labels, -1), counts[:K], value, gap, prices[:K] - level, proved


def _worth(S: Tensor, k: int, ranks: Ranks) -> Tensor:
    """Return about what k samples have a better label than, so that losses are those of labels."""
    best = S.amax(1).sort(descending=True).values
    step = max(1, len(best) // _TOLD)
    said = ranks.told((best[step // 2 :: step], step))
    held = torch.cat([few for few, _ in said])
    size = torch.cat([torch.full_like(few, step) for few, step in said])
    order = held.argsort(descending=True, stable=True)
    place = int((size[order].cumsum(0, dtype=torch.float64) < k).sum())
    worth = held[order][place : place + 2].mean()
    return torch.where(worth > -math.inf, worth, 0.0)


def _peak(S: Tensor) -> Tensor:
    """Return the largest score of each label, (K,)."""
    return S.amax(0) if len(S) else S.new_full((S.shape[1],), -math.inf)


def _forbids(S: Tensor, ranks: Ranks) -> bool:
    """Say whether some score of some rank is -inf."""
    return ranks.total(int(len(S) > 0 and float(S.amin()) == -math.inf)) > 0


@contextmanager
def _bar(show: bool, total: int) -> Iterator[Callable[[int], None]]:
    """Yield what is told how many samples are left to move."""
    if not show:
        yield lambda left: None
        return
    # imported here: who shows no bar does not pay for it
    with needs("tqdm"):
        from tqdm.auto import tqdm

    with tqdm(total=total, desc="repair") as bar:

        def told(left: int) -> None:
            bar.update(total - left - bar.n)

        yield told


def _best(S: Tensor, prices: Tensor) -> Tensor:
    """Return the best label of each sample, (N,)."""
    labels = torch.empty(len(S), dtype=torch.int64, device="cpu")
    for rows, block in blocks(S):
        torch.argmax(block.add_(prices), 1, out=labels[rows])
    return labels
