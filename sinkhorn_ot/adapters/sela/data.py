"""What SeLa reads: log-probabilities in any form, and what all ranks know about all of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import at_least_single, rows_that_count, sound, truths
from sinkhorn_ot.adapters.softmaxes import cleared
from sinkhorn_ot.problem import (
    ArrayLike,
    Block,
    Bounds,
    Facts,
    Index,
    Rows,
    RowsLike,
    Streamed,
    as_rows,
    at_once,
    checks,
    filled,
    number,
    shown,
    survey,
)
from sinkhorn_ot.sweeps import Ranks, same

from .counting import counting, here, weights


# what half precision leaves of a sum of one
_ROUNDED = 1e-2
# entries looked at together: small enough for cache
_TILE = 1 << 16


def linear_heads(
    features: RowsLike | Rows,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    mask: ArrayLike | None = None,
) -> Rows:
    """Return the logits of linear heads, (N, K) or (heads, N, K), made when they are read.

    Args:
        features: Features of each sample, (N, D), in any form that `sela_labels` takes.
        weight: Weights of a head, (K, D), or of several, (heads, K, D).
        bias: Their biases, (K,) or (heads, K).
        mask: Samples that count, in some head at least, (N,) or (heads, N), bool; None for all. The
            others may hold anything.
    """
    # parameters: what is made of them is a constant
    with torch.no_grad():
        W = checks.at_least_dims(
            "weight", sound("weight", checks.tensor("weight", weight)), 2, "(..., K, D)"
        )
        shift = torch.zeros_like(W[..., 0]) if bias is None else checks.tensor("bias", bias)
    checks.same_device("bias", shift, checks.present("weight", W).device, "weight")
    if shift.shape != W.shape[:-1]:
        shape, got = tuple(W.shape[:-1]), tuple(shift.shape)
        raise ValueError(f"bias must have shape {shape} to fit weight, got {got}")
    if shift.device.type == "cpu" and not bool((shift < torch.inf).all()):
        # -inf closes a label
        checks.refuse("bias", "be a number below inf", shift, ~(shift < torch.inf))

    def logits(x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[-1] != W.shape[-1]:
            rule = f"have shape (N, {W.shape[-1]}) to fit weight of {tuple(W.shape)}"
            raise ValueError(f"features must {rule}, got blocks of {tuple(x.shape)}")
        # half precision holds features well, and logits times lamb badly
        work = torch.promote_types(torch.promote_types(x.dtype, W.dtype), torch.float32)
        with torch.autocast(W.device.type, enabled=False):
            y = torch.matmul(x.to(W.device, work), W.to(work).mT)
            return y.add_(shift.to(work)[..., None, :])

    rows = as_rows("features", features, width=W[..., 0].numel())
    if mask is not None:
        keep = truths(mask)
        rows = counting(rows, keep.reshape(-1, keep.shape[-1]).any(0) if keep.ndim > 1 else keep)
    return rows.sound().map(logits)


def mean_log_probs(*modalities: RowsLike | Rows) -> Rows:
    """Return the mean of the log-probabilities of several modalities, made when it is read.

    Args:
        modalities: Log-probabilities of the same samples and labels, each in a form that
            `sela_labels` takes, all in the same blocks.

    Source: Y. M. Asano, M. Patrick, C. Rupprecht, A. Vedaldi, Labelling unlabelled videos from
    scratch with multi-modal self-supervision, NeurIPS 2020.
    """
    if not modalities:
        raise ValueError("modalities must be at least one, got none")
    return Rows.mean(
        [as_rows(f"modality {k}", x).sound(forbids=True) for k, x in enumerate(modalities)]
    )


@shown
@dataclass(frozen=True, eq=False)
class Scores:
    """Log-probabilities of this rank's samples, and what is known of those of all ranks.

    Attributes:
        rows: This rank's.
        facts: What they told, but the bounds are those of all ranks.
        N: Samples on all ranks.
        stored: Whether they are in memory anyway, on all ranks.
        ranks: Who holds them.
        mask: Which of this rank's samples count, (..., rows); None for all.
    """

    rows: Rows
    facts: Facts
    N: int
    stored: bool
    ranks: Ranks
    mask: Tensor | None = None

    @classmethod
    def read(
        cls, source: RowsLike | Rows, ranks: Ranks, name: str = "log_probs", mask: Any = None
    ) -> "Scores":
        """Take the first pass over the rows of every rank."""

        def look() -> tuple[Rows, Facts | None, Tensor | None]:
            rows = as_rows(name, source)
            rows = rows if mask is None else counting(rows, truths(mask))
            facts = survey(rows, -1)
            if mask is None or facts is None:
                return rows, filled(rows.name, facts) if ranks.alone else facts, None
            shape = torch.Size((*facts.batch_shape, *facts.shape))
            return rows, facts, rows_that_count(mask, shape, facts.device)

        (rows, facts, keep), said = ranks.everywhere(
            look, lambda it: (it[1], it[0].stored, mask is not None)
        )
        some = [other for other, _, _ in said if other is not None]
        stored = all(held for _, held, _ in said)
        same([{"whether there is a mask": masked} for _, _, masked in said])
        same([None if other is None else _terms(name, other) for other, _, _ in said])
        N = sum(f.shape[0] for f in some)
        shape = (N, some[0].shape[1]) if some else (0, 0)
        every = filled(rows.name, replace(some[0], shape=shape) if some else None)
        # a rank that has no block learns from the others what one would be
        facts = facts or replace(every, shape=(0, shape[1]))
        # who has no rows has seen no bounds
        seen = [f.bounds for f in some if f.shape[0]]
        low, high = min(b.low for b in seen), max(b.high for b in seen)
        bounds = Bounds(low, high, any(b.forbids for b in seen))
        if mask is not None and keep is None:
            keep = torch.ones(*facts.batch_shape, 0, dtype=torch.bool, device=facts.device)
        return cls(rows, replace(facts, bounds=bounds), N, stored, ranks, keep)

    @property
    def K(self) -> int:
        """Number of labels."""
        return self.facts.shape[1]

    def weights(self) -> Tensor:
        """Return the share of the mass of each of this rank's samples, (..., rows), float64."""
        if self.mask is None:
            shape = (*self.facts.batch_shape, self.facts.shape[0])
            return torch.full(shape, 1.0 / self.N, dtype=torch.float64, device=self.facts.device)
        return weights(self.mask, self.counted(), self.N)

    def counted(self) -> Tensor:
        """Return how many samples of all ranks count, (...)."""
        if self.mask is None:
            return torch.full(self.facts.batch_shape, self.N, device=self.facts.device)
        return self.ranks.sum(self.mask.sum(-1))

    def _here(self, index: Index, block: Tensor) -> Tensor:
        """Return which rows of a block count, (..., rows)."""
        if self.mask is None:
            return torch.ones(block.shape[:-1], dtype=torch.bool, device=block.device)
        return here(self.mask, index, block)

    @property
    def cost(self) -> Streamed:
        """Minus the log-probabilities of this rank, as a cost."""
        return Streamed(self.rows, sign=-1, facts=self.facts)

    def _tiles(self) -> Iterator[Block]:
        """Yield this rank's rows in blocks of a bounded size."""
        return self.rows.tiles(self._per_tile)

    @property
    def _per_tile(self) -> int:
        entries = at_once(self.facts.device, _TILE)
        return max(1, entries // (self.facts.batch_shape.numel() * self.K))

    def labels(self, potentials: Tensor) -> Tensor:
        """Return argmax of log_probs + potentials for this rank's rows, (..., rows)."""
        shape = (*self.facts.batch_shape, self.facts.shape[0])
        labels = torch.empty(shape, dtype=torch.int64, device=self.facts.device)
        # one piece of memory for all blocks: to get it anew costs more than to fill it
        shape = (*self.facts.batch_shape, self._per_tile, self.K)
        score = torch.empty(shape, dtype=torch.float64, device=labels.device)
        for index, S in self._tiles():
            scored = score[..., : S.shape[-2], :].copy_(S).add_(potentials[..., None, :])
            labels[..., index] = _argmax(scored)
        return labels if self.mask is None else labels.masked_fill_(~self.mask, -1)

    def soft(self, potentials: Tensor, lamb: float) -> Tensor:
        """Return the rows of the plan, each scaled to a sum of one, (..., rows, K)."""
        shape = (*self.facts.batch_shape, *self.facts.shape)
        dtype = at_least_single(self.facts.dtype)
        soft = torch.empty(shape, dtype=dtype, device=self.facts.device)
        for index, S in self._tiles():
            exponents = (S.double() + potentials[..., None, :]).mul_(lamb)
            soft[..., index, :] = exponents.softmax(-1).to(dtype)
        return cleared(soft, self.mask)

    def counts(self, labels: Tensor) -> Tensor:
        """Return how many samples of all ranks have each label, (..., K)."""
        counts = labels.new_zeros(*labels.shape[:-1], self.K)
        counts.scatter_add_(-1, labels.clamp(min=0), (labels >= 0).to(labels.dtype))
        return self.ranks.sum(counts)

    def doubtful(self) -> bool:
        """Say whether rows are probabilities, whose labels would look like labels."""
        low, high = self.facts.bounds.low, self.facts.bounds.high
        # minus a logarithm is hardly ever below zero: who gives such pays no look
        if self.K == 1 or self.facts.bounds.forbids or low < -1.0 - _ROUNDED or high > 0.0:
            return False

        def look() -> bool:
            for index, S in self.rows:
                sums = S.sum(-1, dtype=torch.float64)[self._here(index, S)]
                return len(sums) > 0 and bool(((sums - 1).abs() < _ROUNDED).all())
            return False

        return any(self.ranks.everywhere(look, lambda found: found)[1])

    def require_open(self, shares: Tensor) -> None:
        """Require a label with a share for every sample and, for every such label, a sample."""
        if not self.facts.bounds.forbids:
            return
        open_, shared = torch.zeros_like(shares, dtype=torch.bool), shares > 0

        def look() -> None:
            for index, S in self._tiles():
                counts = self._here(index, S)
                allowed = (-torch.inf < S) & counts[..., None]
                closed = counts & ~(allowed & shared[..., None, :]).any(-1)
                if bool(closed.any()):
                    *head, row = checks.first_index(closed)
                    whom, line = "sample some label", "row"
                    if not bool(shared.all()):
                        whom, line = f"{whom} with a share", "those of row"
                    _refuse(whom, line, (*head, number(index, row)))
                open_.logical_or_(allowed.any(-2))

        self.ranks.everywhere(look, lambda _: None)
        closed = (self.ranks.sum(open_.to(torch.int32)) == 0) & shared
        closed &= (self.counted() > 0)[..., None]
        if bool(closed.any()):
            _refuse("label with a share some sample", "column", checks.first_index(closed))

    def sample(self, count: int) -> "Scores":
        """Return about `count` samples, evenly spaced, of all ranks, held in memory."""
        stride = max(1, self.N // count)

        def look() -> tuple[list[Tensor], list[Tensor]]:
            return self._every(stride)

        (kept, masks), said = self.ranks.everywhere(
            look, lambda it: sum(S.shape[-2] for S in it[0])
        )
        few = torch.cat(kept, -2) if kept else torch.empty(0, device=self.facts.device)
        facts = replace(self.facts, shape=(few.shape[-2] if kept else 0, self.K))
        rows = as_rows("log_probs", few) if kept else self.rows
        mask = self.mask
        if mask is not None:
            mask = torch.cat(masks, -1) if masks else mask[..., :0]
        return Scores(rows, facts, sum(said), True, self.ranks, mask)

    def _every(self, stride: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return each so many-th of this rank's rows, by blocks, and which of them count."""
        kept, masks = [], []
        for index, S in self.rows:
            numbers = (
                index
                if isinstance(index, Tensor)
                else torch.arange(index.start, index.stop, device="cpu")
            )
            few_here = (numbers % stride == 0).to(S.device)
            kept.append(S[..., few_here, :])
            masks.append(self._here(index, S)[..., few_here])
        return kept, masks


def _terms(name: str, facts: Facts) -> dict[str, object]:
    """Return what must be the same on every rank that has a block."""
    return {
        "K": facts.shape[1],
        f"leading dimensions of {name}": tuple(facts.batch_shape),
        f"dtype of {name}": facts.dtype,
    }


def _argmax(score: Tensor) -> Tensor:
    if score.device.type != "cpu":
        return score.argmax(-1)
    # the same first maximum, several times as fast
    return torch.from_numpy(np.argmax(score.numpy(), -1))


def _refuse(whom: str, line: str, at: tuple[int, ...]) -> None:
    where = at[0] if len(at) == 1 else at
    raise ValueError(f"log_probs must allow every {whom}, got -inf all along {line} {where}")
