"""SwAV's codes: a few Sinkhorn steps that spread a batch of samples evenly over the prototypes.

A code is a softmax of `S / eps + phi`, one `phi` per prototype. `steps.py` says how a CPU comes to
it; CUDA takes float32 and half precision through the kernels (`_by_operator`); elsewhere, where no
value may be looked at, `_by_logs` takes the same steps one softmax at a time.
"""

import importlib.util
import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.adapters import steps
from sinkhorn_ot.adapters.call import Call, call, terms
from sinkhorn_ot.adapters.steps import (
    Kernel,
    exp,
    not_finite,
    peaks,
    softmax,
    work,
)
from sinkhorn_ot.problem import checks
from sinkhorn_ot.results import ConvergenceWarning, Status
from sinkhorn_ot.solve import solve
from sinkhorn_ot.sweeps import ALONE, Ranks, empty


# looked up here: tracing cannot look into the file system
_TRITON = importlib.util.find_spec("triton") is not None


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
    p = ranks.agree(
        lambda: call(ranks, scores, eps, n_iter, mask, last, out_dtype, hard), terms, lasting=True
    )
    return codes_of(p, ranks)


@dataclass(frozen=True, eq=False)
class SwAVCodes:
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
) -> SwAVCodes:
    """Return `swav_codes` with its labels and the mass of each prototype, for looking at.

    Takes the arguments of `swav_codes`, and one more pass over the codes.
    """
    ranks = Ranks(group)
    p = ranks.agree(
        lambda: call(ranks, scores, eps, n_iter, mask, last, out_dtype, hard), terms, lasting=True
    )
    N, K = p.S.shape[-2:]
    Q = _solved(replace(p, last=N, hard=False, out_dtype=work(p.S)), ranks)
    kept = Q[..., p.start :, :].clone()
    labels = kept.argmax(-1)
    if p.last_mask is not None:
        labels.masked_fill_(~p.last_mask, -1)
    mass = ranks.sum(Q.sum(-2, dtype=torch.float64))
    # no samples give no mass
    mass = K * mass / mass.sum(-1, keepdim=True).clamp_(min=1e-300)
    return SwAVCodes(_read_out(kept, p), labels, mass, (mass - 1).abs().mean(-1))


def codes_of(p: Call, ranks: Ranks) -> Tensor:
    """Return the codes that a call asks for, in its caller's shape."""
    return p.back(_solved(p, ranks))


def _solved(p: Call, ranks: Ranks) -> Tensor:
    with torch.autocast(p.S.device.type, enabled=False):
        if p.n_iter is None:
            return _read_out(_converged(p, ranks), p)
        if ranks.alone and has_kernels(p.S):
            return _by_operator(p, p.n_iter)
        if p.S.device.type == "cpu" and not torch.compiler.is_compiling():
            return _read_out(_by_kernel(p, p.n_iter, ranks), p)
        return _read_out(_by_logs(p, p.n_iter, ranks), p)


def has_kernels(S: Tensor) -> bool:
    """Say whether kernels take numbers of this dtype on this device."""
    return _TRITON and S.device.type == "cuda" and S.dtype != torch.float64


def _by_operator(p: Call, n_iter: int) -> Tensor:
    """Return the codes, (..., last, K), as the operator that the kernels implement writes them."""
    # imported here: it registers operators, which only CUDA tensors need
    from . import operators  # noqa: F401

    *batch, N, K = p.S.shape
    problems = p.S.reshape(-1, N, K)
    keep = None if p.mask is None else p.mask.reshape(-1, N)
    inv_eps = torch.full((len(problems),), p.inv, device=p.S.device)
    codes: Tensor = torch.ops.sinkhorn_ot.codes(
        problems, keep, inv_eps, n_iter, p.last, p.hard, p.out_dtype
    )
    return codes.reshape(*batch, p.last, K)


def _by_logs(p: Call, n_iter: int, ranks: Ranks = ALONE) -> Tensor:
    """Return the codes, (..., last, K), without a look at any value."""
    phi = _first(p, ranks)
    for _ in range(1, n_iter):
        phi -= _mass(p, phi, ranks).log_()
    return _ends(p, phi)


def _first(p: Call, ranks: Ranks) -> Tensor:
    """Return phi after the first prototype step, (..., 1, K), float64."""
    peak = peaks(p.S, p.mask, ranks)
    kernel = _cleared(exp((p.S - peak) * p.inv), p.mask)
    total = ranks.sum(kernel.sum(-2, keepdim=True).double())
    return total.log_().neg_().sub_(peak.double() * p.inv)


def _mass(p: Call, phi: Tensor, ranks: Ranks) -> Tensor:
    """Return what the codes give each prototype, (..., 1, K), float64."""
    Q = _cleared(softmax(p.S, p.inv, phi), p.mask)
    return ranks.sum(Q.sum(-2, keepdim=True).double())


def _ends(p: Call, phi: Tensor) -> Tensor:
    """Take the samples' last step where codes are asked for."""
    return _cleared(softmax(p.S[..., p.start :, :], p.inv, phi), p.last_mask)


def _cleared(x: Tensor, mask: Tensor | None) -> Tensor:
    """Write zeros where a sample does not count."""
    return x if mask is None else x.masked_fill_(~mask[..., None], 0.0)


def _by_kernel(p: Call, n_iter: int, ranks: Ranks = ALONE) -> Tensor:
    """Return the codes, (..., last, K); raise if a score is not finite."""
    batch, (N, K) = p.S.shape[:-2], p.S.shape[-2:]
    problems = p.S.reshape(math.prod(batch), N, K)
    mask = None if p.mask is None else p.mask.reshape(problems.shape[:2])
    Q = empty((len(problems), p.last, K), work(p.S), p.S.device)
    # small problems share the calls, a large one has the cache for itself; ranks share them all
    many = max(1, steps.TILE // (N * K)) if ranks.alone else len(problems)
    for at in range(0, len(problems), many):
        part = slice(at, at + many)
        E = Q[part] if p.last == N else empty(problems[part].shape, Q.dtype, Q.device)
        kernel = Kernel(problems[part], E, p.inv, None if mask is None else mask[part], ranks)
        if not kernel.sound:
            ranks.agree(lambda: refuse_broken(p))
        for _ in range(1, n_iter):
            kernel.step()
        codes = kernel.finish(p.start)
        if p.last < N:
            Q[part] = codes
    return Q.reshape(*batch, p.last, K)


def _converged(p: Call, ranks: Ranks) -> Tensor:
    """Return the codes of converged transport: exact samples, prototypes within the tolerance."""
    if p.S.device.type == "cpu":
        ranks.agree(lambda: refuse_broken(p))
    if not ranks.alone:
        return _ends(p, _converged_over(ranks, p))
    S, weights = p.S, None
    if p.mask is not None:
        S = _cleared(S.clone(), p.mask)
        # where no sample counts any plan will do
        weights = (p.mask | ~p.mask.any(-1, keepdim=True)).double()
        weights /= weights.sum(-1, keepdim=True)
    # the solver ends with the prototypes' potential, from which the last sample step is exact
    phi = solve(-S, weights, reg=1.0 / p.inv).g.double() * p.inv
    return _ends(p, phi[..., None, :])


def _converged_over(ranks: Ranks, p: Call) -> Tensor:
    """Return phi of converged transport over ranks, by steps until the reduced error is small."""
    tol, error = (1e-9 if p.S.dtype == torch.float64 else 1e-6), math.inf
    phi = _first(p, ranks)
    for _ in range(_MOST):
        mass = _mass(p, phi, ranks)
        # the sum over prototypes is the number of samples; none are balanced as they are
        off = mass / mass.mean(-1, keepdim=True)
        error = float((off - 1).abs().mean(-1).nan_to_num(0.0).max())
        if error <= tol:
            return phi
        phi -= off.log_()
    warnings.warn(f"{Status.MAX_ITER.value} (error {error:.1e})", ConvergenceWarning, stacklevel=5)
    return phi


# steps over ranks allowed where the solver has no say
_MOST = 10_000


def _read_out(Q: Tensor, p: Call) -> Tensor:
    """Return codes as a call asks for them: hard or soft, in its dtype."""
    if p.hard:
        Q = torch.zeros_like(Q).scatter_(-1, Q.argmax(-1, keepdim=True), 1.0)
        Q = _cleared(Q, p.last_mask)
    return Q.to(p.out_dtype)


def refuse_broken(p: Call) -> None:
    """Raise for the first score that is not finite, of a sample that counts."""
    # a sum that is finite has no other terms; one that is not may have overflowed
    if p.mask is None and torch.isfinite(p.S.sum(dtype=torch.float64)):
        return
    bad = not_finite(p.S, p.mask)
    if bad.any():
        checks.refuse(p.name, "be finite", p.back(p.S), p.back(bad))
