"""SwAV's codes: a few Sinkhorn steps that spread a batch of samples evenly over the prototypes.

A code is a softmax of `S / eps + phi`, one `phi` per prototype. `_steps.py` says how a CPU comes to
it; where no value may be looked at, `_by_logs` takes the same steps one softmax at a time.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot import _check
from sinkhorn_ot.solve import solve
from sinkhorn_ot.status import ConvergenceWarning, Status

from . import _steps
from ._call import Call, call, terms
from ._ranks import ALONE, Ranks
from ._steps import Kernel, exp, not_finite, peaks, softmax, work


@torch.no_grad()
def swav_codes(
    scores: Any,
    *,
    eps: float = 0.05,
    n_iter: int | None = 3,
    mask: Any = None,
    last: int | None = None,
    hard: bool = False,
    out_dtype: torch.dtype | None = None,
    group: Any = None,
) -> Tensor:
    """Return SwAV's codes for a batch of scores: constants, whether or not the scores require grad.

    Each iteration scales the prototypes to equal mass, then every sample to one. Works under
    autocast and `torch.compile`; on CUDA it never waits for the device.

    With a `group`, the samples of all its ranks are one batch, in which every sample weighs the
    same. Ranks may hold different numbers of samples, or none; what they exchange is K numbers per
    iteration, and once the terms of the call, so that a difference is an error on every rank. (On
    CUDA those are exchanged at the first call, and when this rank's change.) A rank that stops, or
    does not make this call, makes the others raise `RuntimeError`, at the latest when the timeout
    given to `init_process_group` is over.

    Args:
        scores: Similarity of samples and prototypes, (..., N, K). Half precision is computed in
            float32.
        eps: Temperature of the codes, the paper's epsilon.
        n_iter: Iterations, prototypes first; three are not converged transport. None iterates to
            the default tolerance of `solve`, after which every prototype has its share N / K.
        mask: Samples that count, (..., N) or (N,), bool; None for all. The others may hold
            anything, and get codes of zeros.
        last: How many codes to return, those of the last samples; None for all. With a queue, the
            samples of the queue come first.
        hard: Replace each code by the one-hot of its largest entry.
        out_dtype: Dtype of the codes; that of the scores by default.
        group: Process group of torch.distributed over whose ranks the samples are spread, e.g.
            `torch.distributed.group.WORLD`. None is this process alone, whatever is initialised.

    Returns:
        Codes, (..., N, K) or (..., last, K); each sample's row sums to one.

    Raises:
        ValueError: If an argument breaks a rule; for a score that is not finite, with the index of
            the first one. Values are looked at on the CPU only, and not under `torch.compile`:
            there a NaN in the scores makes every code of its problem NaN.
        RuntimeError: If a rank of the group cannot be reached.

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster
    assignments, NeurIPS 2020.
    """
    ranks = Ranks(group)
    p = ranks.agree(lambda: call(scores, eps, n_iter, mask, last, out_dtype, ranks), terms)
    return _read_out(_codes(p, p.last, ranks), p, hard)


@dataclass(frozen=True, eq=False)
class SwavCodes:
    """Codes, and what they give each prototype.

    Attributes:
        codes: One per sample, (..., N, K) or (..., last, K); zeros where the mask is false.
        labels: The largest entry of each code, (..., N) or (..., last), int64; -1 where the mask
            is false.
        prototype_mass: What the codes of all samples give each prototype, in shares: 1 is N / K
            samples, (..., K), float64. On every rank of a group, for the samples of all ranks.
        marginal_error: Mean of |prototype_mass - 1|, (...), float64; large after few iterations.
    """

    codes: Tensor
    labels: Tensor
    prototype_mass: Tensor
    marginal_error: Tensor


@torch.no_grad()
def assign(
    scores: Any,
    *,
    eps: float = 0.05,
    n_iter: int | None = 3,
    mask: Any = None,
    last: int | None = None,
    hard: bool = False,
    out_dtype: torch.dtype | None = None,
    group: Any = None,
) -> SwavCodes:
    """Return `swav_codes` with its labels and the mass of each prototype, for looking at.

    Takes the arguments of `swav_codes`, and one more pass over the codes.
    """
    ranks = Ranks(group)
    p = ranks.agree(lambda: call(scores, eps, n_iter, mask, last, out_dtype, ranks), terms)
    Q, (N, K) = _codes(p, p.S.shape[-2], ranks), p.S.shape[-2:]
    kept = Q[..., N - p.last :, :]
    labels = kept.argmax(-1)
    if p.mask is not None:
        labels.masked_fill_(~p.mask[..., N - p.last :], -1)
    mass = ranks.sum(Q.sum(-2, dtype=torch.float64))
    # no samples give no mass
    mass = K * mass / mass.sum(-1, keepdim=True).clamp_(min=1e-300)
    codes = _read_out(kept.clone(), p, hard)
    return SwavCodes(codes, labels, mass, (mass - 1).abs().mean(-1))


def _codes(p: Call, last: int, ranks: Ranks) -> Tensor:
    """Return the codes of the last samples."""
    S, inv = p.S, 1.0 / p.eps
    with torch.autocast(S.device.type, enabled=False):
        if p.n_iter is None:
            return _converged(S, inv, p.mask, last, ranks)
        if S.device.type == "cpu" and not torch.compiler.is_compiling():
            return _by_kernel(S, inv, p.n_iter, p.mask, last, ranks)
        return _by_logs(S, inv, p.n_iter, p.mask, last, ranks)


def _by_logs(
    S: Tensor,
    inv: float,
    n_iter: int,
    mask: Tensor | None = None,
    last: int | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Return the codes of the last samples, (..., last, K), without a look at any value."""
    phi = _first(S, inv, mask, ranks)
    for _ in range(1, n_iter):
        phi -= _mass(S, inv, phi, mask, ranks).log_()
    return _ends(S, inv, phi, mask, last)


def _first(S: Tensor, inv: float, mask: Tensor | None, ranks: Ranks) -> Tensor:
    """Return phi after the first prototype step, (..., 1, K), float64."""
    peak = peaks(S, mask, ranks)
    kernel = _cleared(exp((S - peak) * inv), mask)
    total = ranks.sum(kernel.sum(-2, keepdim=True).double())
    return total.log_().neg_().sub_(peak.double() * inv)


def _mass(S: Tensor, inv: float, phi: Tensor, mask: Tensor | None, ranks: Ranks) -> Tensor:
    """Return what the codes give each prototype, (..., 1, K), float64."""
    Q = _cleared(softmax(S, inv, phi), mask)
    return ranks.sum(Q.sum(-2, keepdim=True).double())


def _ends(S: Tensor, inv: float, phi: Tensor, mask: Tensor | None, last: int | None) -> Tensor:
    """Return the codes of the last samples."""
    if last is not None:
        start = S.shape[-2] - last
        S, mask = S[..., start:, :], None if mask is None else mask[..., start:]
    return _cleared(softmax(S, inv, phi), mask)


def _cleared(x: Tensor, mask: Tensor | None) -> Tensor:
    """Write zeros where a sample does not count."""
    return x if mask is None else x.masked_fill_(~mask[..., None], 0.0)


def _by_kernel(
    S: Tensor,
    inv: float,
    n_iter: int,
    mask: Tensor | None = None,
    last: int | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Return the codes of the last samples, (..., last, K); raise if a score is not finite."""
    batch, (N, K) = S.shape[:-2], S.shape[-2:]
    last = N if last is None else last
    problems = S.reshape(math.prod(batch), N, K)
    keep = None if mask is None else mask.reshape(-1, N)
    Q = torch.empty(len(problems), last, K, dtype=work(S))
    # small problems share the calls, a large one has the cache for itself; ranks share them all
    many = max(1, _steps.TILE // (N * K)) if ranks.alone else len(problems)
    for start in range(0, len(problems), many):
        part = slice(start, start + many)
        E = Q[part] if last == N else Q.new_empty(problems[part].shape)
        kernel = Kernel(problems[part], E, inv, None if keep is None else keep[part], ranks)
        if not kernel.sound:
            ranks.agree(lambda: _refuse(S, mask))
        for _ in range(1, n_iter):
            kernel.step()
        codes = kernel.finish(N - last)
        if last < N:
            Q[part] = codes
    return Q.reshape(*batch, last, K)


def _converged(
    S: Tensor, inv: float, mask: Tensor | None, last: int, ranks: Ranks
) -> Tensor:
    """Return the codes of converged transport: exact samples, prototypes within the tolerance."""
    if S.device.type == "cpu":
        ranks.agree(lambda: _refuse(S, mask))
    if not ranks.alone:
        return _ends(S, inv, _converged_on(ranks, S, inv, mask), mask, last)
    weights = None
    if mask is not None:
        S = _cleared(S.clone(), mask)
        # where no sample counts any plan will do
        weights = (mask | ~mask.any(-1, keepdim=True)).double()
        weights /= weights.sum(-1, keepdim=True)
    # the solver ends with the prototypes' potential, from which the last sample step is exact
    phi = solve(-S, weights, reg=1.0 / inv).g.double() * inv
    return _ends(S, inv, phi[..., None, :], mask, last)


def _converged_on(ranks: Ranks, S: Tensor, inv: float, mask: Tensor | None) -> Tensor:
    """Return phi of converged transport over ranks, by steps until the reduced error is small."""
    tol, error = (1e-9 if S.dtype == torch.float64 else 1e-6), math.inf
    phi = _first(S, inv, mask, ranks)
    for _ in range(_MOST):
        mass = _mass(S, inv, phi, mask, ranks)
        share = mass.mean(-1, keepdim=True)
        # the sum over prototypes is the number of samples; no samples are balanced as they are
        error = float(((mass - share).abs().mean(-1) / share[..., 0]).nan_to_num(0.0).max())
        if error <= tol:
            return phi
        phi -= (mass / share).log_()
    warnings.warn(f"{Status.MAX_ITER.value} (error {error:.1e})", ConvergenceWarning, stacklevel=5)
    return phi


# steps over ranks allowed where the solver has no say
_MOST = 10_000


def _read_out(Q: Tensor, p: Call, hard: bool) -> Tensor:
    if hard:
        Q = torch.zeros_like(Q).scatter_(-1, Q.argmax(-1, keepdim=True), 1.0)
        Q = _cleared(Q, None if p.mask is None else p.mask[..., p.S.shape[-2] - p.last :])
    return Q.to(p.out_dtype)


def _refuse(S: Tensor, mask: Tensor | None) -> None:
    """Raise for the first score that is not finite, of a sample that counts."""
    # a sum that is finite has no other terms; one that is not may have overflowed
    if mask is None and torch.isfinite(S.sum(dtype=torch.float64)):
        return
    bad = not_finite(S, mask)
    if bad.any():
        _check.refuse("scores", "be finite", S, bad)
