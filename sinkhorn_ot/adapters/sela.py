"""SeLa's labels: the assignment of a whole data set that uses every label to its share.

Labels depend on K numbers only. Transport with cost -log p and reg 1 / lamb gives every label a
potential, and a sample takes the label where its log-probability plus that potential is largest.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot import _check
from sinkhorn_ot.solve import solve


# entries looked at together when labels are read out
_TILE = 1 << 18


@dataclass(frozen=True, eq=False)
class SelaLabels:
    """Labels, the K numbers behind them, and how far to trust them.

    Attributes:
        labels: The label of each sample, argmax of log_probs + potentials, (..., N), int64.
        potentials: What is added to the log-probabilities of each label, (..., K), float64; -inf
            for a label without share. They label new samples, and warm start the next call.
        counts: Samples that each label has, (..., K), int64. The plan has the shares asked for;
            labels are its largest entries and have them only nearly.
        converged: Whether the shares of the plan are within tol, (...), bool.
        n_iter: Sweeps taken, (...), int64.
        marginal_error: Relative L1 distance of the plan's shares from those asked for, (...).
    """

    labels: Tensor
    potentials: Tensor
    counts: Tensor
    converged: Tensor
    n_iter: Tensor
    marginal_error: Tensor


@torch.no_grad()
def sela_labels(
    log_probs: Any,
    *,
    lamb: float = 25.0,
    marginal: Any = None,
    tol: float = 1e-6,
    max_iter: int = 2_000,
    init: SelaLabels | Tensor | None = None,
    progress: bool = False,
) -> SelaLabels:
    """Label a data set so that every label is used to its share.

    Args:
        log_probs: Log-probabilities of each sample and label, (..., N, K), e.g. (heads, N, K). A
            constant per sample changes nothing, so logits do as well; -inf forbids a label.
        lamb: The paper's lambda, one over the entropic regularisation.
        marginal: Share of each label, (K,) or (..., K), scaled to a sum of one; None means 1 / K.
        tol: Relative L1 error of the labels' shares at which the solve ends. Nothing is raised
            where max_iter ends it before: read `converged`.
        max_iter: Sweeps over the data allowed.
        init: Warm start: an earlier answer, or its potentials.
        progress: Show a progress bar.

    Returns:
        A `SelaLabels`: labels, counts, potentials, and whether the shares converged.

    Raises:
        ValueError: If an argument breaks a rule; for values, with the first bad index.

    Source: Y. M. Asano, C. Rupprecht, A. Vedaldi, Self-labelling via simultaneous clustering and
    representation learning, ICLR 2020.
    """
    S = _check.at_least_dims("log_probs", _check.tensor("log_probs", log_probs), 2, "(..., N, K)")
    lamb = _check.positive("lamb", lamb)
    shares = _shares(S, marginal)
    _open(S, shares)
    log_shares = shares.log() / lamb
    # samples are the rows: their marginal is exact after every sweep, the labels' is measured
    found = solve(
        -S,
        b=shares,
        reg=1.0 / lamb,
        tol=tol,
        max_iter=max_iter,
        init=None if init is None else (None, _start(S, init, log_shares)),
        on_fail="ignore",
        progress=progress,
    )
    potentials = found.g.double() + log_shares
    labels, counts = _read_out(S, potentials)
    return SelaLabels(
        labels, potentials, counts, found.converged, found.n_iter, found.marginal_error
    )


def _open(S: Tensor, shares: Tensor) -> None:
    """Require numbers below inf, a label for every sample and a sample for every label."""
    best = S.amax(-1)
    if not bool((best < math.inf).all()):
        _check.refuse("log_probs", "be a number below inf", S, S.isnan() | (math.inf == S))
    _reached("sample some label", "row", best == -math.inf)
    _reached("label with a share some sample", "column", (S.amax(-2) == -math.inf) & (shares > 0))


def _reached(whom: str, line: str, closed: Tensor) -> None:
    if bool(closed.any()):
        at = _check.first_index(closed)
        where = at[0] if len(at) == 1 else at
        raise ValueError(f"log_probs must allow every {whom}, got -inf all along {line} {where}")


def _shares(S: Tensor, marginal: Any) -> Tensor:
    """Return the share of each label, (K,) or (..., K), in float64."""
    K = S.shape[-1]
    if marginal is None:
        return torch.full((K,), 1.0 / K, dtype=torch.float64, device=S.device)
    shares = _check.at_least_dims("marginal", _check.tensor("marginal", marginal), 1, "(..., K)")
    _check.same_device("marginal", shares, S.device, "log_probs")
    if shares.shape[-1] != K or not _fits(shares.shape[:-1], S.shape[:-2]):
        raise ValueError(
            f"marginal must have shape ({K},) or (..., {K}) to fit log_probs of {tuple(S.shape)}, "
            f"got {tuple(shares.shape)}"
        )
    shares = _check.weights("marginal", shares).double()
    return shares / shares.sum(-1, keepdim=True)


def _start(S: Tensor, init: Any, log_shares: Tensor) -> Tensor:
    """Return the transport potential of an earlier answer, in units of log p."""
    potentials = _check.tensor("init", init.potentials if isinstance(init, SelaLabels) else init)
    _check.same_device("init", potentials, S.device, "log_probs")
    K = S.shape[-1]
    if potentials.shape[-1:] != (K,) or not _fits(potentials.shape[:-1], S.shape[:-2]):
        raise ValueError(
            f"init must hold potentials of shape ({K},) or (..., {K}) to fit log_probs of "
            f"{tuple(S.shape)}, got {tuple(potentials.shape)}"
        )
    bad = potentials.isnan() | (potentials == math.inf)
    if bool(bad.any()):
        _check.refuse("init", "hold potentials below inf", potentials, bad)
    g = potentials.double() - log_shares
    # a label without share had no potential, or has none now
    return g.masked_fill(~torch.isfinite(g), 0.0)


def _fits(shape: torch.Size, batch: torch.Size) -> bool:
    """Whether leading dimensions broadcast to those of the log-probabilities."""
    tail = batch[len(batch) - len(shape) :]
    return len(shape) <= len(batch) and all(s in (1, t) for s, t in zip(shape, tail, strict=True))


def _read_out(S: Tensor, potentials: Tensor) -> tuple[Tensor, Tensor]:
    """Return the labels (..., N) and how many samples each has (..., K)."""
    N, K = S.shape[-2:]
    labels = torch.empty(S.shape[:-1], dtype=torch.int64, device=S.device)
    step = max(1, _TILE * N // S.numel())
    for start in range(0, N, step):
        rows = slice(start, start + step)
        labels[..., rows] = (S[..., rows, :].double() + potentials[..., None, :]).argmax(-1)
    counts = torch.zeros_like(potentials, dtype=torch.int64)
    return labels, counts.scatter_add_(-1, labels, torch.ones_like(labels))
