"""SwAV's codes: a few Sinkhorn steps that spread a batch of samples evenly over the prototypes.

A code is a softmax of `S / eps + phi`, one `phi` per prototype. A CPU comes to it `by_products`;
CUDA takes float32 and half precision through the operator that Triton kernels implement; elsewhere,
where no value may be looked at, `by_logs` takes the same steps one softmax at a time. A compiler is
shown the operator on either.
"""

from typing import TypedDict

import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import Asked, agreed, at_least_single
from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.adapters.sela import Ending
from sinkhorn_ot.adapters.softmaxes import by_logs, by_products, cleared, codes_at
from sinkhorn_ot.adapters.transport import potentials
from sinkhorn_ot.problem import ArrayLike, checks, has_triton
from sinkhorn_ot.results import OnFail, missed
from sinkhorn_ot.sweeps import ProcessGroup

from .arrays import by_arrays


class Options(TypedDict, total=False):
    """What `swav_codes` is asked beside scores, for those who hand it on."""

    eps: float
    n_iter: int | None
    mask: ArrayLike | None
    last: int | None
    hard: bool
    out_dtype: torch.dtype | None
    on_fail: OnFail
    group: ProcessGroup | None


@constant
def swav_codes(  # noqa: PLR0913
    scores: ArrayLike,
    *,
    eps: float = 0.05,
    n_iter: int | None = 3,
    mask: ArrayLike | None = None,
    last: int | None = None,
    hard: bool = False,
    out_dtype: torch.dtype | None = None,
    on_fail: OnFail = "warn",
    group: ProcessGroup | None = None,
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
        on_fail: What to do where n_iter=None does not reach its tolerance: "warn", "raise"
            `ConvergenceError`, whose `.result` is the codes as they are, "ignore". Iterations in a
            given number are all made, and nothing is said.
        group: Process group of torch.distributed over whose ranks the samples are spread, e.g.
            `torch.distributed.group.WORLD`. None is this process alone, whatever is initialised.

    Returns:
        Codes, (..., N, K) or (..., last, K); each sample's row sums to one.

    Raises:
        ValueError: If an argument breaks a rule; for a score that is not finite, with the index of
            the first one. Values are looked at on the CPU only: elsewhere a NaN in the scores makes
            every code of its problem NaN.
        RuntimeError: If a rank of the group cannot be reached.
        ConvergenceError: With on_fail="raise", on all ranks.

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster
    assignments, NeurIPS 2020.
    """
    named = "scores", "eps", "swav_codes"
    how = eps, n_iter, mask, last, out_dtype, hard, *named, on_fail
    return codes_of(agreed(group, scores, *how))


@constant
def codes_of_named(
    names: tuple[str, str],
    scores: Tensor,
    eps: float | Tensor,
    n_iter: int,
    group: ProcessGroup | None,
) -> Tensor:
    """Return codes in single precision at least; messages give scores and eps these names."""
    kind = at_least_single(scores.dtype) if scores.is_floating_point() else None
    return codes_of(agreed(group, scores, eps, n_iter, None, None, kind, False, *names))


def codes_of(p: Asked) -> Tensor:
    """Return the codes that a call asks for, in its caller's shape."""
    return p.back(_solved(p))


def _solved(p: Asked) -> Tensor:
    if p.n_iter is not None and p.ranks.alone:
        if has_kernels(p.S) or (torch.compiler.is_compiling() and p.S.device.type == "cpu"):
            # autocast has no say in what operators compute
            return _by_operator(p, p.n_iter)
        if p.S.device.type == "cpu":
            return by_host(p, p.n_iter)
    with torch.autocast(p.S.device.type, enabled=False):
        if p.n_iter is None:
            phi, ended = converged(p)
            Q = read_out(codes_at(p, phi), p)
            say(p, ended, p.back(Q))
            return Q
        if p.S.device.type == "cpu" and not torch.compiler.is_compiling():
            return read_out(by_products(p, p.n_iter), p)
        return read_out(by_logs(p, p.n_iter), p)


def by_host(p: Asked, n_iter: int) -> Tensor:
    """Return the codes of one process on a CPU; raise if a score is not finite."""
    with torch.autocast("cpu", enabled=False):
        codes = by_arrays(p, n_iter)
        return read_out(by_products(p, n_iter) if codes is None else codes, p)


def has_kernels(S: Tensor) -> bool:
    """Say whether kernels take numbers of this dtype on this device."""
    return S.device.type == "cuda" and S.dtype != torch.float64 and has_triton()


def _by_operator(p: Asked, n_iter: int) -> Tensor:
    """Return the codes, (..., N - start, K), as the operator writes them."""
    # imported here: it registers operators, which neither a CPU nor a user of solve needs
    from . import operators

    *batch, N, K = p.S.shape
    problems = p.S.reshape(-1, N, K)
    keep = None if p.mask is None else p.mask.reshape(-1, N)
    how = n_iter, N - p.start, p.hard, p.out_dtype
    if checks.seen_through(problems, keep):
        codes: Tensor = torch.ops.sinkhorn_ot.codes(problems, keep, 1.0 / p.eps, *how)
    else:
        codes = operators.codes_by_triton(problems, keep, 1.0 / p.eps, *how)
    return codes.reshape(*batch, N - p.start, K)


def converged(p: Asked) -> tuple[Tensor, Ending]:
    """Return phi of converged transport: from it, the last step of the samples is exact."""
    p.ranks.agree(p.require_sound)
    r = None if p.shares is None else p.shares / p.S.shape[-1]
    g, ended = potentials(p.name, p.S, 1.0 / p.eps, p.ranks, p.unresolved, mask=p.mask, marginal=r)
    g = g if p.shares is None else g.masked_fill(p.shares == 0, -torch.inf)
    return g[..., None, :] * (1.0 / p.eps), ended


def say(p: Asked, ended: Ending, answer: object) -> None:
    """Raise or warn of what did not converge, as its caller asked."""
    if not ended.good:
        softer = f"raise {p.eps_name}, or give n_iter"
        missed(ended.said(p.call, softer), answer, p.on_fail)


def read_out(Q: Tensor, p: Asked) -> Tensor:
    """Return codes as a call asks for them: hard or soft, in its dtype."""
    if p.hard:
        Q = torch.zeros_like(Q).scatter_(-1, Q.argmax(-1, keepdim=True), 1.0)
        Q = cleared(Q, p.kept)
    return Q.to(p.out_dtype)
