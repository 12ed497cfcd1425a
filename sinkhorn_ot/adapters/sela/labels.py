"""SeLa's labels: the assignment of a whole data set that uses every label to its share.

Labels depend on K numbers only. Transport with cost -log p and reg 1 / lamb gives every label a
potential, and a sample takes the label where its log-probability plus that potential is largest.
So the log-probabilities are read, block by block, and not kept: they may be a file, a loader, what
linear heads make of features, or the rows of many ranks.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, cast, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from sinkhorn_ot.adapters.arguments import best_labels
from sinkhorn_ot.adapters.balanced import balanced_labels
from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.problem import ArrayLike, Rows, RowsLike, checks, shown
from sinkhorn_ot.results import ON_FAIL, ConvergenceError, OnFail, Result, Status, told, uncompiled
from sinkhorn_ot.solve import Checkpoint
from sinkhorn_ot.solve.checkpoints import checked
from sinkhorn_ot.solvers import Callback, passing, watch
from sinkhorn_ot.sweeps import ProcessGroup, Ranks

from .arguments import Asked, asked_for
from .data import Scores, linear_heads
from .ending import Ending
from .shares import align_marginal, whole_counts
from .solving import solved


Rounding = Literal["argmax", "balanced"]


@shown
@dataclass(frozen=True, eq=False)
class SelaLabels(Result):
    """Labels, the K numbers behind them, and how far to trust them.

    Attributes:
        labels: The label of each sample, (..., N), int64: argmax of log_probs + potentials, unless
            rounding made the counts exact. -1 where the mask is false. Under ranks, of this rank's
            samples.
        potentials: What is added to the log-probabilities of each label, (..., K), float64; -inf
            for a label without share. They label new samples, warm start the next call, and resume
            one that was stopped.
        counts: Samples that each label has, on all ranks, (..., K), int64. The plan has the shares
            asked for; labels are its largest entries and have them only nearly.
        converged: Whether the shares of the plan are within tol, (...), bool.
        n_iter: Sweeps over all data, (...), int64.
        marginal_error: Relative L1 distance of the plan's shares from those asked for, (...).
        statuses: How the solve of each problem ended.
        soft: Rows of the plan, each scaled to a sum of one: the probability of each label given the
            sample, (..., N, K), float32, or float64 for float64 log-probabilities; zeros where the
            mask is false. None unless asked for.
    """

    labels: Tensor
    potentials: Tensor
    counts: Tensor
    converged: Tensor
    n_iter: Tensor
    marginal_error: Tensor
    statuses: list[Status]
    soft: Tensor | None = None

    _tells = (
        "labels",
        "potentials",
        "counts",
        "converged",
        "n_iter",
        "marginal_error",
        "statuses",
        "soft",
    )
    _precise = "what is labelled hangs on the last digit of its numbers"

    @property
    def _batch(self) -> torch.Size:
        return self.converged.shape

    @property
    def status(self) -> Status:
        """How the solve ended; of several heads, the worst."""
        return self._ending.status

    @property
    def message(self) -> str:
        """One sentence on how the solve ended, with the error it reached."""
        return self._ending.said("sela_labels", "lower lamb", "raise max_iter or tol, or ")

    @property
    def _ending(self) -> Ending:
        return Ending(self.statuses, self.marginal_error, self.n_iter)

    def check(self) -> "SelaLabels":
        """Return self, or raise `ConvergenceError` if some head was not solved to tolerance."""
        if any(status is not Status.CONVERGED for status in self.statuses):
            raise ConvergenceError(self.message, self)
        return self

    @constant
    def of(self, log_probs: ArrayLike) -> Tensor:
        """Return labels of samples that were not there, by the potentials as they are.

        No sample changes the label of another, and no share binds them. Those that were there get
        the labels they had, unless rounding made the counts exact. More than memory holds is
        labelled block by block, by a call for each.

        Args:
            log_probs: Log-probabilities of other samples and the same labels, (..., M, K).

        Returns:
            argmax of log_probs + potentials, (..., M), int64.

        Raises:
            ValueError: If they do not fit, one is NaN or inf, or a sample may take no label.
        """
        return best_labels("log_probs", log_probs, self.potentials)


class Options(TypedDict, total=False):
    """What `sela_labels` is asked beside log-probabilities, for those who hand it on."""

    lamb: float
    marginal: ArrayLike | None
    align: ArrayLike | Literal[True] | None
    tol: float
    max_iter: int
    init: SelaLabels | Tensor | None
    on_fail: OnFail
    rounding: Rounding
    soft: bool
    mask: ArrayLike | None
    progress: bool
    callback: Callback | None
    checkpoint: str | os.PathLike[str] | Checkpoint | None


class OptionsOverRanks(Options, total=False):
    """The same where the caller does not say itself over which ranks the samples are spread."""

    group: ProcessGroup | None


@uncompiled
@constant
def sela_labels(  # noqa: PLR0913
    log_probs: RowsLike | Rows,
    *,
    lamb: float = 25.0,
    marginal: ArrayLike | None = None,
    align: ArrayLike | Literal[True] | None = None,
    tol: float = 1e-6,
    max_iter: int = 2_000,
    init: SelaLabels | Tensor | None = None,
    on_fail: OnFail = "warn",
    rounding: Rounding = "argmax",
    soft: bool = False,
    mask: ArrayLike | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    group: ProcessGroup | None = None,
) -> SelaLabels:
    """Label a data set so that every label is used to its share.

    Args:
        log_probs: Log-probabilities of each sample and label, (..., N, K), e.g. (heads, N, K): a
            tensor, an array, or a memory map, which is never loaded whole. Or what can be iterated
            again and again, as a list, a data loader, or a function that starts an iteration: of
            blocks (..., rows, K) in order, or of pairs (numbers of the samples, block) in any
            order, every sample once. A constant per sample changes nothing, so logits do as well;
            -inf forbids a label.
        lamb: The paper's lambda, one over the entropic regularisation.
        marginal: Share of each label, (K,) or (..., K), scaled to a sum of one; None means 1 / K.
            `gaussian_marginal` and `zipf_marginal` make unequal ones.
        align: Current sizes of the clusters, (K,) or (..., K), to whose order the shares are put:
            the largest share goes to the largest cluster. True takes those of argmax log_probs.
        tol: Relative L1 error of the labels' shares at which the solve ends; samples are exact.
            The paper's rule is a sum over samples, sum_i |c_i / c_i' - 1| <= 0.1, and means
            tol = 0.1 / N; as a mean over samples it does not depend on N, and is tol.
        max_iter: Sweeps over the data allowed.
        init: Warm start: an earlier answer, or its potentials.
        on_fail: What to do where tol is not reached: "warn", "raise" `ConvergenceError`, "ignore".
        rounding: "argmax" labels each sample by its largest entry of the plan, and counts have the
            shares only nearly; samples with equal rows get one label, however many they are.
            "balanced" makes the counts exact, by `balanced_labels`, for data in memory; where
            1 / K each leaves a remainder, some labels have one more.
        soft: Whether to return the plan's rows too, softmax(lamb (log_probs + potentials)): N K
            numbers, held in memory. Rounding does not change them.
        mask: Samples that count, (..., N) or (N,), bool, of this rank; None for all. The others
            may hold anything, and get no label.
        progress: Show a progress bar, on the first rank.
        callback: Called with a `Progress` after every sweep; returning True stops. The answer so
            far is returned, and given as `init` it resumes.
        checkpoint: A path, or a `Checkpoint`: while the solve runs it keeps there where it stands,
            and the same call goes on from there; one that had ended is labelled at once. Over ranks
            each has a file of its own, and they go on from the last sweep that all have kept.
        group: Process group of torch.distributed over which the samples are spread: each rank
            passes its own, in any number, none included, and everything else alike.

    Returns:
        Labels, counts, potentials, and whether the shares converged.

    Raises:
        ValueError: If an argument breaks a rule, with the first bad index for values, or the
            checkpoint is of another problem, truncated or altered; on all ranks if it is on one.
        RuntimeError: If another rank failed meanwhile.

    Source: Y. M. Asano, C. Rupprecht, A. Vedaldi, Self-labelling via simultaneous clustering and
    representation learning, ICLR 2020.
    """
    checks.one_of("on_fail", on_fail, ON_FAIL)
    checks.one_of("rounding", rounding, get_args(Rounding))
    checks.flag("progress", progress)
    checks.flag("soft", soft)
    checks.callback("callback", callback)
    kept = checked(checkpoint)
    _doubt_blocks(log_probs)
    ranks = Ranks(group)
    scores = Scores.read(log_probs, ranks, mask=mask)
    if rounding == "balanced" and not scores.stored:
        raise ValueError('rounding="balanced" needs all log_probs in memory')

    def look() -> Asked:
        start = init.potentials if isinstance(init, SelaLabels) else init
        return asked_for(scores, lamb, tol, max_iter, marginal, align, start)

    watched = {"callback": callback is not None, "checkpoint": kept is not None, "on_fail": on_fail}
    asked = ranks.agree(look, lambda it: it.terms() | watched)
    if align is True:
        even = torch.zeros_like(asked.marginal)
        largest, _ = ranks.everywhere(lambda: scores.labels(even), lambda _: None)
        sizes = scores.counts(largest)
        asked = replace(asked, marginal=align_marginal(asked.marginal, sizes))
    if scores.doubtful():
        said = "log_probs has rows that sum to one, as probabilities do: pass their logarithm"
        warnings.warn(said, UserWarning, stacklevel=4)
    scores.require_open(asked.marginal)
    show, stop = progress and ranks.rank == 0, ranks.any_of(callback)
    with watch(show, stop, asked.tol, asked.max_iter) as watcher, _watched(scores, show) as read:
        found = solved(read, asked, watcher, kept)
    batch = scores.facts.batch_shape
    potentials = (found.v.double() / asked.lamb).reshape(asked.marginal.shape)

    def read_out() -> tuple[Tensor | None, Tensor | None]:
        wanted = scores.labels(potentials) if rounding == "argmax" else None
        return wanted, scores.soft(potentials, asked.lamb) if soft else None

    (labels, softly), _ = ranks.everywhere(read_out, lambda _: None)
    if labels is None:
        counts = None if marginal is None else whole_counts(asked.marginal, scores.counted())
        labels = balanced_labels(
            cast("ArrayLike", log_probs),
            counts,
            init=potentials,
            on_fail=on_fail,
            mask=mask,
            progress=progress,
            group=group,
        ).labels
    met = torch.tensor([s is Status.CONVERGED for s in found.status], device=labels.device)
    assert found.error is not None
    answer = SelaLabels(
        labels,
        potentials,
        scores.counts(labels),
        met.reshape(batch),
        found.n_iter.reshape(batch),
        found.error.reshape(batch),
        found.status,
        softly,
    )
    # whoever stopped it knows
    told(answer, answer.status in (Status.CONVERGED, Status.STOPPED), on_fail)
    return answer


@contextmanager
def _watched(scores: Scores, show: bool) -> Iterator[Scores]:
    """Return a context with the scores, which shows how far a pass over them is."""
    if not show or scores.stored:
        yield scores
        return
    with passing(scores.facts.shape[0]) as told:
        yield replace(scores, rows=scores.rows.watched(told))


def sela_labels_from_features(
    features: RowsLike | Rows,
    weight: Tensor,
    bias: Tensor | None = None,
    **options: Unpack[OptionsOverRanks],
) -> SelaLabels:
    """Label a data set by the logits of linear heads, formed block by block and never kept.

    Args:
        features: Features of each sample, (N, D), in any form that `sela_labels` takes.
        weight: Weights of a head, (K, D), or of several, (heads, K, D).
        bias: Their biases, (K,) or (heads, K).
        options: What `sela_labels` takes.

    Raises:
        ValueError: As `sela_labels` does.
    """
    logits = linear_heads(features, weight, bias, mask=options.get("mask"))
    return sela_labels(logits, **options)


def _doubt_blocks(log_probs: object) -> None:
    """Warn of a list that may as well hold heads: blocks of one shape, the last one included."""
    if not isinstance(log_probs, (list, tuple)) or len(log_probs) < 2:
        return
    shapes = {tuple(x.shape) if isinstance(x, Tensor) else None for x in log_probs}
    if len(shapes) == 1 and None not in shapes:
        warnings.warn(
            f"log_probs is a list of {len(log_probs)} tensors of one shape, and read as blocks of "
            "samples: stack heads by torch.stack(log_probs), or pass a function that yields blocks",
            UserWarning,
            stacklevel=4,
        )
