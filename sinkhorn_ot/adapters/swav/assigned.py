"""SwAV's codes with what stands behind them: labels, masses, and potentials for new samples."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import Asked, checked, others, per_label, sound
from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.adapters.sela import Ending
from sinkhorn_ot.adapters.softmaxes import closed, codes_at, softmax, stepped
from sinkhorn_ot.problem import ArrayLike, checks, shown
from sinkhorn_ot.results import OnFail, Result
from sinkhorn_ot.sweeps import ProcessGroup, Ranks

from .codes import converged, read_out, say


@shown
@dataclass(frozen=True, eq=False)
class SwAVCodes(Result):
    """Codes, and what they give each prototype.

    Attributes:
        codes: One per sample, (..., N, K) or (..., last, K); zeros where the mask is false.
        labels: The largest entry of each code, (..., N) or (..., last), int64; -1 where the mask
            is false.
        prototype_mass: What the codes of all samples give each prototype, in shares: 1 is N / K
            samples, (..., K), float64. On every rank of a group, for the samples of all ranks.
        marginal_error: Mean distance of prototype_mass from what was asked for, 1 each unless there
            is a marginal, (...), float64; large after few iterations.
        potentials: What is added to the scores of each prototype, (..., K), float64: a code is
            softmax((scores + potentials) / eps). -inf for a prototype without share.
        eps: Temperature of the codes.
    """

    codes: Tensor
    labels: Tensor
    prototype_mass: Tensor
    marginal_error: Tensor
    potentials: Tensor
    eps: float

    _tells = ("codes", "labels", "prototype_mass", "marginal_error", "potentials")
    _precise = "what is labelled hangs on the last digit of its numbers"

    @property
    def _batch(self) -> torch.Size:
        return self.marginal_error.shape

    @constant
    def of(self, scores: ArrayLike) -> Tensor:
        """Return the codes of samples that were not there, with the potentials as they are.

        No sample changes the code of another. Those that were there get the codes they had.

        Args:
            scores: Similarity of other samples and the same prototypes, (..., M, K).

        Returns:
            Codes, (..., M, K), in the dtype of the scores; each sample's row sums to one.

        Raises:
            ValueError: If the scores do not fit, or on the CPU one is not finite.
        """
        S = others("scores", scores, self.potentials)
        phi = self.potentials[..., None, :] * (1.0 / self.eps)
        with torch.autocast(S.device.type, enabled=False):
            return closed(softmax(sound("scores", S), 1.0 / self.eps, phi), phi).to(S.dtype)


@constant
def assign(  # noqa: PLR0913
    scores: ArrayLike,
    *,
    eps: float = 0.05,
    n_iter: int | None = 3,
    mask: ArrayLike | None = None,
    marginal: ArrayLike | None = None,
    last: int | None = None,
    hard: bool = False,
    out_dtype: torch.dtype | None = None,
    on_fail: OnFail = "warn",
    group: ProcessGroup | None = None,
) -> SwAVCodes:
    """Return `swav_codes` with what stands behind them, for looking at and for new samples.

    Takes the arguments of `swav_codes`, and softmaxes in float64 instead of its shorter way.

    Args:
        scores: Similarity of samples and prototypes, (..., N, K).
        eps: Temperature of the codes.
        n_iter: Iterations, prototypes first; None iterates to a tolerance.
        mask: Samples that count, (..., N) or (N,), bool; None for all.
        marginal: Share of each prototype, (K,) or (..., K), scaled to a sum of one; None means
            1 / K. The steps scale the prototypes to their shares where SwAV's scale them to equal
            mass. A prototype without share has codes of zero.
        last: How many codes to return, those of the last samples; None for all.
        hard: Replace each code by the one-hot of its largest entry.
        out_dtype: Dtype of the codes; that of the scores by default.
        on_fail: What to do where n_iter=None does not reach its tolerance, as in `swav_codes`.
        group: Process group over whose ranks the samples are spread.

    Returns:
        Codes, labels, masses, and potentials with which `of` makes codes of others.

    Raises:
        ValueError: If an argument breaks a rule; see `swav_codes`.
        RuntimeError: If a rank of the group cannot be reached.

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster
    assignments, NeurIPS 2020.
    """
    ranks = Ranks(group)

    def check() -> Asked:
        named = "scores", "eps", "swav.assign"
        p = checked(ranks, scores, eps, n_iter, mask, last, out_dtype, hard, *named, on_fail)
        return p if marginal is None else replace(p, shares=_shares(marginal, p.S))

    p = ranks.agree(check, Asked.terms, lasting=True)
    with torch.autocast(p.S.device.type, enabled=False):
        phi, ended = _phi(p)
        Q = closed(codes_at(replace(p, start=0, kept=p.mask), phi), phi)
    kept = Q[..., p.start :, :].clone()
    labels = kept.argmax(-1)
    if p.kept is not None:
        labels.masked_fill_(~p.kept, -1)
    mass = p.ranks.sum(Q.sum(-2, dtype=torch.float64))
    # no samples give no mass
    mass = Q.shape[-1] * mass / mass.sum(-1, keepdim=True).clamp_(min=1e-300)
    error = (mass - (1.0 if p.shares is None else p.shares)).abs().mean(-1)
    # where no sample counts any potentials will do
    potentials = (p.eps * phi[..., 0, :]).masked_fill(phi[..., 0, :] == torch.inf, 0.0)
    answer = SwAVCodes(read_out(kept, p), labels, mass, error, potentials, p.eps)
    if ended is not None:
        say(p, ended, answer)
    return answer


def _shares(marginal: Any, S: Tensor) -> Tensor:
    """Return the shares of prototypes, 1 being N / K samples, (..., K), float64."""
    shares = per_label("marginal", marginal, tuple(S.shape), S.device, "scores")
    if S.device.type == "cpu" and not torch.compiler.is_compiling():
        checks.weights("marginal", shares)
    return shares * (S.shape[-1] / shares.sum(-1, keepdim=True))


def _phi(p: Asked) -> tuple[Tensor, Ending | None]:
    """Return what the codes of a call add to the exponents, (..., 1, K), float64."""
    if p.n_iter is None:
        return converged(p)
    if p.S.device.type == "cpu" and not torch.compiler.is_compiling():
        p.ranks.agree(p.require_sound)
    return stepped(p, p.n_iter), None
