"""Labels in exact counts: the best labelling that gives every label its share, with proof.

A price per label turns the task into an argmax: samples that each take their best of
scores + prices are labelled optimally for the counts that they make. The dual of entropic transport
gives prices whose counts are nearly right. `Exchange` repairs the rest along shortest paths; the
prices follow, every sample stays at its best, and that proves the last labelling optimal.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import best_labels
from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.problem import ArrayLike, checks, shown
from sinkhorn_ot.results import (
    ON_FAIL,
    ConvergenceError,
    OnFail,
    Result,
    in_words,
    missed,
    uncompiled,
)
from sinkhorn_ot.sweeps import ProcessGroup, Ranks, same

from .arguments import Asked, Mode, Priced, asked_for, counted, require_room, started
from .task import Task


@shown
@dataclass(frozen=True, eq=False)
class BalancedLabels(Result):
    """Labels in exact counts, and how far they can be from the best ones.

    Attributes:
        labels: The label of each sample, (..., N), int64; -1 for one that has none. Over ranks, of
            this rank's samples; all else is of the samples of all ranks, and alike on each of them.
        counts: Samples that each label has, (..., K), int64.
        value: Sum of scores[i, labels[i]], (...), float64.
        gap: No labelling in such counts has a value above value + gap, (...), float64. In mode
            "exact" it is zero up to rounding.
        potentials: Prices that prove the gap, (..., K), float64; -inf for a label that stays empty.
            In mode "exact" each sample has a largest entry of scores + potentials; where only k of
            them are labelled, it is at least zero for those, and at most zero for the others.
        proved: Whether the gap is rounding, so that no labelling in such counts is better, (...),
            bool.
    """

    labels: Tensor
    counts: Tensor
    value: Tensor
    gap: Tensor
    potentials: Tensor
    proved: Tensor

    _tells = ("labels", "counts", "value", "gap", "potentials", "proved")
    _precise = "what is labelled hangs on the last digit of its numbers"

    @property
    def _batch(self) -> torch.Size:
        return self.value.shape

    @property
    def bound(self) -> Tensor:
        """What the value of no labelling in such counts exceeds, (...)."""
        return self.value + self.gap

    @property
    def message(self) -> str:
        """One sentence on what is proved of the labels."""
        bad = ~self.proved.reshape(-1)
        if not len(bad):
            return in_words([])
        if not bool(bad.any()):
            return "balanced_labels: no labels in such counts are better, but for rounding"
        many, worst = len(bad), float(self.gap.reshape(-1)[bad].max())
        which = "labels" if many == 1 else f"{int(bad.sum())} of {many} problems"
        return (
            f"balanced_labels: {which} are not proved best, others may be better by {worst:.3g}: "
            "take mode='exact', and subtract from each sample's scores the largest of them"
        )

    def check(self) -> "BalancedLabels":
        """Return self, or raise `ConvergenceError` if labels are not proved to be the best."""
        if not bool(self.proved.all()):
            raise ConvergenceError(self.message, self)
        return self

    @constant
    def of(self, scores: ArrayLike) -> Tensor:
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
def balanced_labels(  # noqa: PLR0913
    scores: ArrayLike,
    counts: ArrayLike | None = None,
    *,
    k: int | None = None,
    mode: Mode = "exact",
    init: Priced | ArrayLike | None = None,
    on_fail: OnFail = "warn",
    mask: ArrayLike | None = None,
    progress: bool = False,
    group: ProcessGroup | None = None,
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
        on_fail: What to do where mode "exact" ends without its proof: "warn", "raise"
            `ConvergenceError`, "ignore". Mode "fast" promises none; `check` asks for it.
        mask: Samples that count, (..., N) or (N,), bool; None for all. The others may hold
            anything, get the label -1 and are not among the N that counts sum to.
        progress: Show progress bars, on the first rank.
        group: Process group of torch.distributed over which the samples are spread: each rank
            passes its own, in any number, none included, and everything else alike. No rank sees
            the others' samples: each holds its rows, and 2 K * K numbers.

    Returns:
        Labels, counts, value, and a bound that proves how good they are.

    Raises:
        ValueError: If an argument breaks a rule, the forbidden pairs leave no labelling, or float64
            cannot hold a sum of N such scores; on all ranks if it does on one.
        RuntimeError: If another rank failed meanwhile.
        ConvergenceError: With on_fail="raise", on all ranks.
    """
    ranks = Ranks(group)

    def look() -> Asked:
        checks.one_of("on_fail", on_fail, ON_FAIL)
        return asked_for(ranks, scores, counts, k, mode, init, mask, progress)

    def tell(asked: Asked) -> tuple[Any, list[int], int]:
        terms = None if ranks.alone else asked.terms() | {"on_fail": on_fail}
        return terms, asked.samples(), asked.S.shape[-2]

    asked, said = ranks.everywhere(look, tell)
    same([terms for terms, _, _ in said])
    N = [sum(held) for held in zip(*(held for _, held, _ in said), strict=True)]
    if sum(rows for _, _, rows in said) == 0:
        raise ValueError(f"scores must not be empty, got shape {tuple(asked.S.shape)}")
    low, start = counted(asked, N), started(asked)
    ranks.everywhere(lambda: require_room(asked, N), lambda _: None)
    batch = asked.S.shape[:-2]
    answers = []
    for at, n in enumerate(N):
        where = f" of problem {at}" if batch else ""
        every = torch.ones_like(low[at], dtype=torch.bool)
        task = Task(asked.of(at), n, low[at], every, asked.exact, asked.progress, where, ranks)
        begin = None if start is None else start[at]
        labels, *known = task.labelled(n if asked.k is None else asked.k, begin)
        answers.append((asked.placed(labels, at), *known))
    fields = [torch.stack(t).reshape((*batch, *t[0].shape)) for t in zip(*answers, strict=True)]
    found = BalancedLabels(*(t.to(asked.S.device) for t in fields))
    # as it was on the CPU: a device is not waited for
    if asked.exact and not bool(fields[-1].all()):
        missed(found.message, found, on_fail)
    return found
