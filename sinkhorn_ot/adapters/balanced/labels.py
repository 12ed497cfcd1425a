"""Labels in exact counts: the best labelling that gives every label its share, with proof.

A price per label turns the task into an argmax: samples that each take their best of
scores + prices are labelled optimally for the counts that they make. The dual of entropic transport
gives prices whose counts are nearly right. `Exchange` repairs the rest along shortest paths; the
prices follow, every sample stays at its best, and that proves the last labelling optimal.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import best_labels
from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.problem import checks, shown
from sinkhorn_ot.results import uncompiled

from .arguments import below_inf, counted, started, summable
from .exchange import Exchange, send_directly
from .prices import SHARP, TILE, blocks, dual, near


MODES = ("exact", "fast")
# samples per label, and share of all samples, that the first prices are found with
_SAMPLED = 20
_SHARE = 0.1
# scores below which a sample of them is not worth a solve
_SMALL = 1 << 17


@shown
@dataclass(frozen=True, eq=False)
class BalancedLabels:
    """Labels in exact counts, and how far they can be from the best ones.

    Attributes:
        labels: The label of each sample, (..., N), int64; -1 for one that has none.
        counts: Samples that each label has, (..., K), int64.
        value: Sum of scores[i, labels[i]], (...), float64.
        gap: No labelling in such counts has a value above value + gap, (...), float64. In mode
            "exact" it is zero up to rounding.
        potentials: Prices that prove the gap, (..., K), float64; -inf for a label that stays empty.
            In mode "exact" each sample has a largest entry of scores + potentials; where only k of
            them are labelled, it is at least zero for those, and at most zero for the others.
    """

    labels: Tensor
    counts: Tensor
    value: Tensor
    gap: Tensor
    potentials: Tensor

    @property
    def bound(self) -> Tensor:
        """What the value of no labelling in such counts exceeds, (...)."""
        return self.value + self.gap

    @constant
    def of(self, scores: Any) -> Tensor:
        """Return labels of samples that were not there, by the prices as they are.

        No counts bind them. Those that were there get the labels they had, but where two tie, as at
        the prices of a best labelling some do.

        Args:
            scores: Score of each other sample and the same labels, (..., M, K).

        Returns:
            argmax of scores + potentials, (..., M), int64.

        Raises:
            ValueError: If the scores do not fit, one is NaN or inf, or a sample may take no label.
        """
        return best_labels("scores", scores, self.potentials)


@uncompiled
@constant
def balanced_labels(
    scores: Any,
    counts: Any = None,
    *,
    k: int | None = None,
    mode: str = "exact",
    init: Any = None,
    progress: bool = False,
) -> BalancedLabels:
    """Label samples so that every label has exactly its count and the sum of scores is largest.

    The labels are constants, whether or not the scores require grad. The work is done on the CPU:
    scores of a GPU are copied there, all N * K of them, and the answer is put back beside them.

    Args:
        scores: Score of each sample and label, (..., N, K), e.g. log-probabilities; -inf forbids a
            label. There may be more labels than samples.
        counts: Samples of each label, (K,) or (..., K), whole numbers that sum to N, or to k. None
            means N / K each, or k / K; where K does not divide that, which labels have one more is
            optimised too.
        k: How many samples get a label, those whose scores are worth most; the others get -1, which
            is worth nothing. None means all.
        mode: "exact", or "fast": rougher prices and a greedy repair. What that loses at most is the
            answer's `gap`.
        init: Warm start: an earlier answer, also one of `sela_labels`, or its potentials.
        progress: Show progress bars.

    Returns:
        Labels, counts, value, and a bound that proves how good they are.

    Raises:
        ValueError: If an argument breaks a rule, the forbidden pairs leave no labelling, or float64
            cannot hold a sum of N such scores.
    """
    S = checks.at_least_dims("scores", checks.tensor("scores", scores), 2, "(..., N, K)")
    checks.present("scores", S)
    checks.one_of("mode", mode, MODES)
    N, K = S.shape[-2:]
    placed = N if k is None else checks.count("k", k)
    if placed > N:
        raise ValueError(f"k must be at most the {N} samples, got {placed}")
    below_inf(S, placed == N)
    summable(S)
    checks.flag("progress", progress)
    batch = S.shape[:-2]
    low, start = counted(counts, S, placed), started(init, S)
    work = S.cpu() if S.dtype in (torch.float32, torch.float64) else S.cpu().float()
    answers = []
    for at, one in enumerate(work.reshape(-1, N, K)):
        fixed = torch.zeros(K, dtype=torch.bool, device="cpu")
        where = f" of problem {at}" if batch else ""
        task = _Task(one, low[at], fixed, mode == "exact", where, progress)
        begin = None if start is None else start[at]
        answers.append(task.solved(begin) if placed == N else _some(task, placed, begin))
    fields = (torch.stack(t).reshape((*batch, *t[0].shape)) for t in zip(*answers, strict=True))
    return BalancedLabels(*(t.to(S.device) for t in fields))


@shown
@dataclass(frozen=True, eq=False)
class _Task:
    """One problem on the CPU.

    Attributes:
        S: Scores, (N, K).
        low: Samples that each label must have, (K,). If that leaves samples over, as many labels
            have one more.
        fixed: Labels that have none more, (K,).
        exact: Whether the labelling must be the best one.
        where: Which problem of a batch it is, for errors.
        progress: Whether to show progress bars.
    """

    S: Tensor
    low: Tensor
    fixed: Tensor
    exact: bool
    where: str
    progress: bool

    @property
    def left_over(self) -> int:
        return len(self.S) - int(self.low.sum())

    def solved(self, start: Tensor | None) -> tuple[Tensor, ...]:
        """Return the fields of a `BalancedLabels`."""
        peak = self.S.amax(0)
        open_ = peak > -math.inf
        if bool((~open_ & (self.low > 0)).any()):
            k = checks.first_index(~open_ & (self.low > 0))[0]
            why = f"label {k} must have {int(self.low[k])} samples and none may take it"
            raise self._impossible(why)
        used = open_ & (self.low > 0) if self.left_over == 0 else open_
        if self.left_over > (places := int((used & ~self.fixed).sum())):
            raise self._impossible(f"only {places} labels have places, one each")
        if not bool(used.all()):
            self._require_labels(used)
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

    def _widened(self, used: Tensor, start: Tensor | None) -> tuple[Tensor, ...]:
        """Solve without the labels that stay empty, then put them back."""
        part = replace(self, S=self.S[:, used], low=self.low[used], fixed=self.fixed[used])
        labels, counts, value, gap, prices = part.solved(None if start is None else start[used])
        wide = torch.zeros_like(self.low).masked_scatter_(used, counts)
        shut = prices.new_full(used.shape, -math.inf)
        return used.nonzero()[labels, 0], wide, value, gap, shut.masked_scatter_(used, prices)

    def _prices(self, start: Tensor | None) -> Tensor:
        """Return prices whose argmax has nearly the counts, (K,)."""
        N, K = self.S.shape
        # of samples that get a label
        labelled = 1 - float(self.low[self.fixed].sum()) / N
        few = max(round(_SAMPLED * K / labelled), round(_SHARE * N))
        sample = self.S
        if 2 * few <= N and N * K > _SMALL:
            sample = sample[
                torch.randperm(N, generator=torch.Generator().manual_seed(0), device="cpu")[:few]
            ]
        some = sample[: 1 + (TILE // K)].double()
        losses = some.amax(1, keepdim=True) - some
        reg = SHARP * float(losses[losses < math.inf].median())
        if reg == 0 or K == 1:
            return torch.zeros(K, dtype=torch.float64, device="cpu") if start is None else start
        shares = (self.low + self.left_over * ~self.fixed / (~self.fixed).sum()) / N
        # a label may be closed to the whole sample
        if start is None and (len(sample) == N or bool((sample.amin(0) > -math.inf).all())):
            start = dual(sample, shares, reg, None, self.progress)
            if len(sample) == N:
                return start
            if self.exact and (found := near(self.S, shares, reg, start)) is not None:
                return found
        if start is not None and not self.exact:
            return start
        return dual(self.S, shares, reg, start, self.progress)

    def _repaired(self, prices: Tensor, largest: float) -> tuple[Tensor, Tensor]:
        """Return labels in the right counts, and the prices that ended there."""
        labels = _best(self.S, prices)
        excess = torch.bincount(labels, minlength=len(self.low)) - self.low
        # places go where they are cheapest, or where they save most repairs
        order = prices if self.exact else -excess.double()
        first = order.masked_fill(self.fixed, math.inf).argsort()
        dealt = torch.zeros_like(self.low, dtype=torch.bool)
        dealt[first[: self.left_over]] = True
        if not self.exact:
            sent = labels.numpy().copy()
            if send_directly(self.S.numpy(), sent, (excess - dealt.long()).numpy()):
                return torch.from_numpy(sent), prices
            return replace(self, exact=True)._repaired(prices, largest)
        S, given, places, fixed = (t.numpy() for t in (self.S, labels, dealt, self.fixed))
        exchange = Exchange(S, given, self.low.numpy(), places, prices.numpy(), largest, fixed)
        with _bar(self.progress, exchange.misplaced) as told:
            if not exchange.repair(told):
                closed, many = exchange.stranded()
                named = closed[~fixed[closed]]
                whose = f"the samples of labels {checks.some(named)}"
                if len(named) < len(closed):
                    whose = "samples without a label" if len(named) == 0 else f"{whose} and of none"
                raise self._impossible(f"{whose} may take no other, {many} too many")
        return torch.from_numpy(exchange.labels), torch.from_numpy(exchange.prices)

    def _proved(self, labels: Tensor, prices: Tensor) -> tuple[Tensor, ...]:
        """Return the fields of the answer; the gap is what samples and places lose."""
        counts = torch.bincount(labels, minlength=len(self.low))
        value = gap = torch.zeros((), dtype=torch.float64, device="cpu")
        for rows, block in blocks(self.S):
            own = labels[rows, None]
            value = value + block.gather(1, own).sum()
            block += prices
            gap = gap + (block.amax(1) - block.gather(1, own)[:, 0]).sum()
        least = prices[~self.fixed].sort().values[: self.left_over].sum()
        dealt = prices[counts > self.low].sum() - least
        return labels, counts, value, gap + dealt, prices

    def _impossible(self, why: str) -> ValueError:
        return ValueError(f"scores must leave a labelling{self.where}, but {why}")


def _some(task: _Task, k: int, start: Tensor | None) -> tuple[Tensor, ...]:
    """Label k samples: the others take one label more, which is worth the same to all of them."""
    S, (N, K) = task.S, task.S.shape
    # where about k samples have a better one, so that losses are those of labels
    worth = S.amax(1).sort(descending=True).values[k - 1 : k + 1].mean()
    worth = torch.where(worth > -math.inf, worth, 0.0)
    wide = replace(
        task,
        S=torch.cat([S, worth.expand(N, 1)], 1),
        low=torch.cat([task.low, task.low.new_tensor([N - k])]),
        fixed=torch.cat([task.fixed, ~task.fixed[:1]]),
    )
    begin = None if start is None else torch.cat([start, -worth[None].double()])
    labels, counts, _, gap, prices = wide.solved(begin)
    here = labels < K
    value = S[here, labels[here]].double().sum()
    level = prices[K] + worth
    return torch.where(here, labels, -1), counts[:K], value, gap, prices[:K] - level


@contextmanager
def _bar(show: bool, total: int) -> Iterator[Callable[[int], None]]:
    """Yield what is told how many samples are left to move."""
    if not show:
        yield lambda left: None
        return
    # imported here: who shows no bar does not pay for it
    from tqdm.auto import tqdm

    with tqdm(total=total, desc="repair") as bar:

        def told(left: int) -> None:
            bar.update(total - left - bar.n)

        yield told


def _best(S: Tensor, prices: Tensor) -> Tensor:
    """Return the best label of each sample, (N,)."""
    return torch.cat([block.add_(prices).argmax(1) for _, block in blocks(S)])
