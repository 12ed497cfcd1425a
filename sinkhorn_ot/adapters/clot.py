"""CLOT: a batch is labelled by transport in two views, each predicted from the other, contrasted.

The labels are soft: the plan between samples and clusters in equal shares, to a tolerance. They are
targets, so no gradient flows through them; the two terms of the loss have theirs.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.problem import ArrayLike, checks
from sinkhorn_ot.results import ON_FAIL, OnFail, missed, uncompiled
from sinkhorn_ot.sweeps import ProcessGroup, Ranks

from .arguments import (
    at_least_single,
    levelled,
    mean_of_rows,
    not_finite,
    rows_that_count,
    samples,
    sound,
    temperature,
)
from .softmaxes import cleared
from .transport import potentials


_UNRESOLVED = (
    "lamb must be at most {most:.3g} for {dtype} to resolve lamb * log_probs, got {inverse:.3g}: "
    "lower it, or add a constant to log_probs"
)


@uncompiled
@constant
def clot_labels(
    log_probs: ArrayLike,
    *,
    lamb: float = 5.0,
    tol: float = 1e-6,
    max_iter: int = 1_000,
    on_fail: OnFail = "warn",
    mask: ArrayLike | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return soft labels of a batch, in equal shares of the clusters: constants.

    Args:
        log_probs: Log-probabilities of each sample and cluster, (..., N, K). A constant per sample
            changes nothing, so logits do as well.
        lamb: The paper's lambda, one over the entropic regularisation.
        tol: Relative L1 error of the clusters' shares at which the solve ends.
        max_iter: Sweeps allowed.
        on_fail: What to do where tol is not reached: "warn", "raise" `ConvergenceError`, whose
            `.result` is the labels as they are, "ignore".
        mask: Samples that count, (..., N) or (N,), bool; None for all. The others may hold
            anything, and get labels of zeros.
        group: Process group of torch.distributed over which the batch is spread: each rank passes
            its own samples, in any number, none included, and everything else alike.

    Returns:
        Labels, (..., N, K), in the dtype of the log-probabilities; each row sums to one, each
        column to N / K within tol, N being the samples of all ranks that count.

    Raises:
        ValueError: If an argument breaks a rule; for a value, with the first bad index.
        ConvergenceError: With on_fail="raise", on all ranks.
    """
    ranks = Ranks(group)

    def look() -> tuple[Tensor, Tensor | None, float]:
        checks.one_of("on_fail", on_fail, ON_FAIL)
        S = samples("log_probs", log_probs, "(..., N, K)", ranks)
        checks.present("log_probs", S)
        keep = None if mask is None else rows_that_count(mask, S.shape, S.device)
        # a sum that is finite has no other terms
        if not math.isfinite(float(S.sum(dtype=torch.float64))):
            bad = not_finite(S, keep)
            if bool(bad.any()):
                checks.refuse("log_probs", "be finite", S, bad)
        if keep is not None:
            S = levelled(S, keep)
        return S, keep, temperature("lamb", lamb)

    def terms(it: tuple[Tensor, Tensor | None, float]) -> dict[str, object]:
        said: dict[str, object] = {"lamb": it[2], "tol": tol, "max_iter": max_iter}
        said["on_fail"] = on_fail
        # ranks solve the problems of a mask one by one
        return {**said, "whether there is a mask": it[1] is not None}

    S, keep, lamb = ranks.agree(look, terms)
    if ranks.total(S.shape[-2]) == 0:
        raise ValueError("log_probs must not be empty, got no sample on any rank of the group")
    with torch.autocast(S.device.type, enabled=False):
        work = S.to(at_least_single(S.dtype))
        limits: dict[str, Any] = {"tol": tol, "max_iter": max_iter}
        g, ended = potentials("log_probs", work, lamb, ranks, _UNRESOLVED, mask=keep, **limits)
        # one more step on the samples, which makes their rows exact
        q = torch.softmax(lamb * (work + g.to(work.dtype)[..., None, :]), -1)
        q = cleared(q, keep).to(S.dtype)
    if not ended.good:
        missed(ended.said("clot_labels", "lower lamb", "raise max_iter or tol, or "), q, on_fail)
    return q


def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.5) -> Tensor:
    """Return the contrastive loss of two views: each sample must find its pair among all others.

    With unit vectors, the mean over all 2N samples of the cross-entropy of the pair under
    softmax(cosines / temperature) of the 2N - 1 others.

    Args:
        z1: Embeddings of one view, (N, d).
        z2: Embeddings of the other view of the same samples, (N, d).
        temperature: What the cosines are divided by.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: T. Chen et al., A simple framework for contrastive learning of visual representations,
    ICML 2020, equation 1.
    """
    _pair("z1", z1, "z2", z2)
    temperature = checks.positive("temperature", temperature)
    with torch.autocast(z1.device.type, enabled=False):
        work = torch.promote_types(z1.dtype, torch.float32)
        z = F.normalize(torch.cat([z1, z2]).to(work), dim=1)
        n = len(z)
        itself = torch.eye(n, dtype=torch.bool, device=z.device)
        logits = (z @ z.T / temperature).masked_fill(itself, -math.inf)
        pair = torch.arange(n, device=z.device).roll(n // 2)
        return F.cross_entropy(logits, pair)


class CLOTLoss(nn.Module):
    """The loss of CLOT: labels of one view predicted by the other, both ways, plus `nt_xent`.

    Args:
        lamb: One over the entropic regularisation of the labels.
        weight: Weight of the contrastive term.
        temperature: Temperature of the contrastive term.
        tol: Error of the clusters' shares at which a labelling ends.
        on_fail: What to do where tol is not reached: "warn", "raise", "ignore".
        group: Process group over which the batch is spread. Labels are those of the whole batch;
            the loss is the mean over this rank's samples, zero where it has none, and the
            contrastive term is among them.
    """

    def __init__(
        self,
        lamb: float = 5.0,
        weight: float = 1.0,
        temperature: float = 0.5,
        tol: float = 1e-3,
        on_fail: OnFail = "warn",
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.lamb = checks.positive("lamb", lamb)
        self.weight = checks.number("weight", weight)
        self.temperature = checks.positive("temperature", temperature)
        self.tol = checks.positive("tol", tol)
        self.on_fail = checks.one_of("on_fail", on_fail, ON_FAIL)
        self.group = group

    def forward(self, logits1: Tensor, logits2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
        """Return the loss of a batch.

        Args:
            logits1: Cluster logits of one view, (N, K).
            logits2: Cluster logits of the other view of the same samples, (N, K).
            z1: Embeddings of the first view, (N, d).
            z2: Embeddings of the second view, (N, d).
        """

        def look() -> None:
            _pair("logits1", logits1, "logits2", logits2, self.group is not None)
            _pair("z1", z1, "z2", z2, self.group is not None)

        Ranks(self.group).agree(look)
        swapped = self._swapped(logits1, logits2)
        if len(logits1) == 0:
            return swapped
        return swapped + self.weight * nt_xent(z1, z2, self.temperature)

    def swapped(self, logits1: Tensor, logits2: Tensor) -> Tensor:
        """Return the mean cross-entropy of each view under the labels of the other."""
        Ranks(self.group).agree(
            lambda: _pair("logits1", logits1, "logits2", logits2, self.group is not None)
        )
        return self._swapped(logits1, logits2)

    def _swapped(self, logits1: Tensor, logits2: Tensor) -> Tensor:
        log_p = [F.log_softmax(t, 1, dtype=at_least_single(t.dtype)) for t in (logits1, logits2)]
        how: dict[str, Any] = {k: getattr(self, k) for k in ("lamb", "tol", "on_fail", "group")}
        q = [clot_labels(t.detach(), **how) for t in log_p]
        loss = -((q[0] * log_p[1]).sum(1) + (q[1] * log_p[0]).sum(1))
        return mean_of_rows(loss) / 2

    def extra_repr(self) -> str:
        """Return the settings."""
        weights = f"lamb={self.lamb:g}, weight={self.weight:g}"
        return f"{weights}, temperature={self.temperature:g}, tol={self.tol:g}"


def _pair(name: str, t: Tensor, other: str, u: Tensor, empty: bool = False) -> None:
    """Require two finite matrices of one shape, dtype and device; of no rows only if `empty`."""
    for one, tensor in ((name, t), (other, u)):
        if not isinstance(tensor, Tensor) or tensor.dtype not in checks.FLOATS:
            raise ValueError(f"{one} must be a floating-point tensor, got {_kind(tensor)}")
        if tensor.ndim != 2 or 0 in tensor.shape[empty:]:
            raise ValueError(f"{one} must have shape (N, d), not empty, got {tuple(tensor.shape)}")
    if t.shape != u.shape or t.dtype != u.dtype:
        raise ValueError(
            f"{name} and {other} must share shape and dtype, got {tuple(t.shape)} in {t.dtype} "
            f"and {tuple(u.shape)} in {u.dtype}"
        )
    checks.same_device(other, u, t.device, name)
    sound(name, t)
    sound(other, u)


def _kind(x: Any) -> str:
    return str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
