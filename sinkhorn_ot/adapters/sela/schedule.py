"""When SeLa relabels during training, and where a training loop keeps the labels."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from sinkhorn_ot.problem import ArrayLike, Rows, RowsLike, checks, in_short
from sinkhorn_ot.sweeps import ProcessGroup, Ranks

from .labels import Options, SelaLabels, sela_labels


@dataclass(frozen=True)
class SelaSchedule:
    """The epochs at which the data set is relabelled, as data.

    Args:
        epochs: Points in training, in epochs, rising; fractions lie within an epoch.
    """

    epochs: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a <= b for a, b in zip(self.epochs, self.epochs[1:], strict=False))
        if not self.epochs or not rising or not 0 <= self.epochs[0] <= self.epochs[-1] < math.inf:
            raise ValueError(f"epochs must rise from zero or later, got {self.epochs}")

    @classmethod
    def power(cls, epochs: float, times: int, power: float = 2.0) -> "SelaSchedule":
        """Return `times` points from 0 on, the k-th at epochs * (k / times) ** power.

        Args:
            epochs: Length of the training.
            times: How often to relabel.
            power: 1 for even gaps; above it, labels change often early and seldom late.
        """
        total, times = checks.positive("epochs", epochs), checks.count("times", times)
        power = checks.positive("power", power)
        return cls(tuple(total * (k / times) ** power for k in range(times)))

    @classmethod
    def geometric(cls, epochs: float, times: int, ratio: float = 1.1) -> "SelaSchedule":
        """Return `times` points from 0 on, each gap `ratio` times the one before.

        Args:
            epochs: Length of the training, where the last gap ends.
            times: How often to relabel.
            ratio: 1 for even gaps.
        """
        total, times = checks.positive("epochs", epochs), checks.count("times", times)
        gaps = [checks.positive("ratio", ratio) ** k for k in range(times)]
        return cls(tuple(total * math.fsum(gaps[:k]) / math.fsum(gaps) for k in range(times)))

    def steps(self, per_epoch: int) -> frozenset[int]:
        """Return the training steps, counted from 0, before which to relabel."""
        per_epoch = checks.count("per_epoch", per_epoch)
        # a point that rounding put past a step is that step's
        return frozenset(math.ceil(epoch * per_epoch - 1e-9) for epoch in self.epochs)


class LabelBank(nn.Module):
    """The labels of a data set and what warm starts the next ones, in a module's buffers.

    They move and are saved with the model that the bank is part of. Indexed by the numbers of a
    batch's samples, it returns their labels, (rows,) or (heads, rows).

    Args:
        N: Samples of the data set.
        K: Labels.
        heads: Number of heads; None for one without its own dimension.
    """

    labels: Tensor
    potentials: Tensor
    updates: Tensor

    def __init__(self, N: int, K: int, heads: int | None = None) -> None:
        super().__init__()
        N, K = checks.count("N", N), checks.count("K", K)
        batch = () if heads is None else (checks.count("heads", heads),)
        self.register_buffer("labels", torch.full((*batch, N), -1, dtype=torch.int64))
        self.register_buffer("potentials", torch.zeros(*batch, K, dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @property
    def ready(self) -> bool:
        """Whether there are labels."""
        return int(self.updates) > 0

    def __getitem__(self, index: int | slice | ArrayLike) -> Tensor:
        """Return the labels of the samples with these numbers."""
        if not self.ready:
            raise ValueError("the bank must be updated before it is read, got no labels yet")
        return self.labels[..., cast("Tensor", index)]

    @torch.no_grad()
    def update(
        self,
        log_probs: RowsLike | Rows,
        *,
        index: ArrayLike | None = None,
        group: ProcessGroup | None = None,
        **options: Unpack[Options],
    ) -> SelaLabels:
        """Label the data set anew, from the potentials of the last time.

        Args:
            log_probs: What `sela_labels` takes: all samples, or with `group` this rank's.
            index: Numbers of this rank's samples in the data set; None if they are all of it, in
                order. A sample on several ranks, as samplers pad, takes one of its labels.
            group: Process group of torch.distributed; every rank's bank gets all labels.
            options: Further arguments of `sela_labels`. Samples that a mask leaves out have the
                label -1.

        Raises:
            ValueError: As `sela_labels` does, or if labels do not fit the bank.
        """
        if self.ready:
            options.setdefault("init", self.potentials)
        found = sela_labels(log_probs, group=group, **options)

        def own() -> tuple[Tensor, Tensor]:
            return self._placed(found, index)

        _, said = Ranks(group).everywhere(own, lambda pair: tuple(t.cpu() for t in pair))
        fresh = torch.full_like(self.labels, -1)
        reached = torch.zeros(fresh.shape[-1], dtype=torch.bool, device=fresh.device)
        for at, labels in said:
            fresh[..., at.to(fresh.device)] = labels.to(fresh.device)
            reached[at.to(fresh.device)] = True
        if not bool(reached.all()):
            missing = checks.first_index(~reached)[-1]
            raise ValueError(f"index must reach every sample of the bank, {missing} is missing")
        self.labels.copy_(fresh)
        self.potentials.copy_(found.potentials)
        self.updates += 1
        return found

    def extra_repr(self) -> str:
        """Say the sizes, and how often the bank was updated."""
        heads = f", heads={len(self.labels)}" if self.labels.ndim > 1 else ""
        N, K = self.labels.shape[-1], self.potentials.shape[-1]
        return f"N={N}, K={K}{heads}, updates={in_short(self.updates)}"

    def _placed(self, found: SelaLabels, index: ArrayLike | None) -> tuple[Tensor, Tensor]:
        """Return the numbers of the samples and their labels; raise if the bank is another's."""
        N, rows = self.labels.shape[-1], found.labels.shape[-1]
        given = range(rows) if index is None else index
        at = checks.numbers("index", given)
        fits = found.potentials.shape == self.potentials.shape and at.shape == (rows,)
        if not fits or (rows and not 0 <= int(at.min()) <= int(at.max()) < N):
            raise ValueError(
                f"log_probs must fit the bank's labels {tuple(self.labels.shape)} and potentials "
                f"{tuple(self.potentials.shape)}, got labels {tuple(found.labels.shape)} numbered "
                f"{tuple(at.shape)} and potentials {tuple(found.potentials.shape)}"
            )
        return at, found.labels
