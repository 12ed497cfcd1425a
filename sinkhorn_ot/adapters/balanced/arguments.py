"""What `balanced_labels` is given, checked, and the same on all ranks."""

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import alike, rows_that_count, samples
from sinkhorn_ot.problem import checks, shown
from sinkhorn_ot.sweeps import Ranks


Mode = Literal["exact", "fast"]


class Priced(Protocol):
    """An answer that holds what each label costs."""

    @property
    def potentials(self) -> Tensor:
        """What is added to the scores of each label, (..., K)."""
        ...


# what scores of all samples may sum to, in size: differences of two such sums are numbers
_LARGEST = 1e307


@shown
@dataclass(frozen=True, eq=False)
class Asked:
    """What a call asks for, checked.

    Attributes:
        S: Scores of this rank's samples, (..., N, K).
        best: The largest of each, (..., N); zero for one that does not count.
        mask: Which of them count, (..., N); None for all.
        counts: Samples of each label, as given, int64; None for equal ones.
        k: How many samples get a label; None for all.
        exact: Whether the labelling must be the best one.
        init: Potentials to start from, as given, float64; None for none.
        progress: Whether to show progress bars.
    """

    S: Tensor
    best: Tensor
    mask: Tensor | None
    counts: Tensor | None
    k: int | None
    exact: bool
    init: Tensor | None
    progress: bool

    @property
    def batch(self) -> int:
        """How many problems they are."""
        return self.S.shape[:-2].numel()

    def terms(self) -> dict[str, object]:
        """Return what must be the same on all ranks."""
        said = alike(self, "S", "best", "mask", "exact", "progress")
        return {
            "K": self.S.shape[-1],
            "leading dimensions of scores": tuple(self.S.shape[:-2]),
            "dtype of scores": self.S.dtype,
            "whether there is a mask": self.mask is not None,
            "mode": get_args(Mode)[not self.exact],
            **{name: x.tolist() if isinstance(x, Tensor) else x for name, x in said.items()},
        }

    def samples(self) -> list[int]:
        """Return how many samples of this rank count in each problem."""
        if self.mask is None:
            return [self.S.shape[-2]] * self.batch
        return self.mask.sum(-1).reshape(-1).tolist()

    def of(self, at: int) -> Tensor:
        """Return the scores of the samples that count in a problem, (n, K), on the CPU."""
        one = self.S.reshape(self.batch, *self.S.shape[-2:])[at]
        keep = self._keep(at)
        one = (one if keep is None else one[keep]).cpu()
        return one if one.dtype in (torch.float32, torch.float64) else one.float()

    def placed(self, labels: Tensor, at: int) -> Tensor:
        """Return labels of the samples that count in a problem as those of all, (N,)."""
        keep = self._keep(at)
        if keep is None:
            return labels
        every = labels.new_full(keep.shape, -1)
        return every.masked_scatter_(keep.cpu(), labels)

    def _keep(self, at: int) -> Tensor | None:
        mask = self.mask
        return None if mask is None else mask.reshape(self.batch, mask.shape[-1])[at]


def asked_for(  # noqa: PLR0913
    ranks: Ranks,
    scores: Any,
    counts: Any,
    k: Any,
    mode: Any,
    init: Any,
    mask: Any,
    progress: Any,
) -> Asked:
    """Check what one rank can check by itself."""
    S = checks.present("scores", samples("scores", scores, "(..., N, K)", ranks))
    keep = None if mask is None else rows_that_count(mask, S.shape, S.device)
    best = S.amax(-1)
    best = best if keep is None else best.masked_fill(~keep, 0.0)
    asked = Asked(
        S,
        best,
        keep,
        None if counts is None else _counts(counts),
        None if k is None else checks.count("k", k),
        checks.one_of("mode", mode, get_args(Mode)) == "exact",
        None if init is None else _started(init),
        checks.flag("progress", progress),
    )
    if not bool((best < math.inf).all()):
        bad = S.isnan() | (math.inf == S)
        checks.refuse("scores", "be a number below inf", S, bad & _counting(asked)[..., None])
    return asked


def _counting(asked: Asked) -> Tensor:
    ones = torch.ones_like(asked.S[..., 0], dtype=torch.bool)
    return ones if asked.mask is None else asked.mask


def require_room(asked: Asked, N: list[int]) -> None:
    """Require what depends on how many samples all ranks have: on this one, what it holds.

    Args:
        asked: What a call asks for.
        N: Samples of all ranks that count, by problem.
    """
    if asked.k is not None and asked.k > min(N):
        raise ValueError(f"k must be at most the {min(N)} samples, got {asked.k}")
    closed = asked.best == -math.inf
    # whoever gets no label needs none
    if bool(closed.any()) and bool((closed := closed & _all_labelled(asked, N)).any()):
        at = checks.first_index(closed)
        where = at[0] if len(at) == 1 else at
        raise ValueError(
            f"scores must allow every sample some label, got -inf all along row {where}"
        )
    _require_summable(asked, max(N))


def _all_labelled(asked: Asked, N: list[int]) -> Tensor:
    """Return in which problems every sample gets a label, (..., 1)."""
    every = torch.tensor([asked.k in (None, n) for n in N], device=asked.S.device)
    return every.reshape(*asked.S.shape[:-2], 1)


def _require_summable(asked: Asked, N: int) -> None:
    """Require scores whose sums are numbers; those of narrower dtypes always are."""
    S = asked.S
    if S.dtype != torch.float64 or S.numel() == 0:
        return
    most = _LARGEST / max(1, N)
    # nearly always true of all, and quicker to see than of which
    low, high = S.aminmax()
    if bool(low >= -most) and bool(high <= most):
        return
    bad = S.isfinite() & (S.abs() > most) & _counting(asked)[..., None]
    if bool(bad.any()):
        rule = f"be at most {most:.3g} in size for float64 to hold the sum of {N} of them"
        checks.refuse("scores", rule, S, bad)


def counted(asked: Asked, N: list[int]) -> Tensor:
    """Return how many samples each label must have at least, (B, K), of those that have one."""
    K, B = asked.S.shape[-1], asked.batch
    placed = torch.tensor([n if asked.k is None else asked.k for n in N], device="cpu")
    if asked.counts is None:
        return (placed // K)[:, None].expand(B, K)
    t = _per_problem("counts", asked.counts, asked.S)
    if bool((off := t.sum(-1) != placed).any()):
        at = checks.first_index(off)[0]
        total, n, k = int(t[at].sum()), N[at], int(placed[at])
        what = f"the {n} samples" if k == n else f"k = {k}"
        hint = f": k={total} leaves the other samples without a label" if total < k == n else ""
        raise ValueError(f"counts must sum to {what}, got a sum of {total}{hint}")
    return t


def started(asked: Asked) -> Tensor | None:
    """Return the prices of an earlier answer, (B, K); a label that had none starts at zero."""
    if asked.init is None:
        return None
    return _per_problem("init", asked.init.masked_fill(asked.init == -math.inf, 0.0), asked.S)


def _counts(counts: Any) -> Tensor:
    t = checks.numbers("counts", counts).cpu().to(torch.int64)
    if bool((t < 0).any()):
        checks.refuse("counts", "be non-negative", t, t < 0)
    return t


def _started(init: Any) -> Tensor:
    t = checks.present("init", checks.tensor("init", getattr(init, "potentials", init)))
    t = t.cpu().double()
    bad = t.isnan() | (t == math.inf)
    if bool(bad.any()):
        checks.refuse("init", "hold potentials below inf", t, bad)
    return t


def _per_problem(name: str, t: Tensor, S: Tensor) -> Tensor:
    """Return one row per problem, (B, K)."""
    K = S.shape[-1]
    try:
        return t.expand(*S.shape[:-2], K).reshape(-1, K)
    except RuntimeError:
        raise ValueError(
            f"{name} must have shape ({K},) or (..., {K}) to fit scores of {tuple(S.shape)}, "
            f"got {tuple(t.shape)}"
        ) from None
