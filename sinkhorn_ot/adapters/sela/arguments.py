"""What a call of SeLa asks for beside its scores: checked, and the same on all ranks."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import alike, per_label, sound, temperature
from sinkhorn_ot.problem import checks, shown

from .data import Scores
from .shares import align_marginal


UNRESOLVED = (
    "lamb must be at most {most:.3g} for {dtype} to resolve lamb * log_probs, got {inverse:.3g}: "
    "lower it, add a constant to log_probs, or forbid outlying labels by -inf"
)


@shown
@dataclass(frozen=True, eq=False)
class Asked:
    """What a call asks for, checked.

    Attributes:
        lamb: One over the regularisation.
        tol: Error of the shares to reach.
        max_iter: Sweeps allowed.
        marginal: Share of each label, (..., K), float64.
        init: Potentials to start from, (..., K), float64, or None.
        unresolved: What `resolved` says to the caller.
    """

    lamb: float
    tol: float
    max_iter: int
    marginal: Tensor
    init: Tensor | None
    unresolved: str = UNRESOLVED

    def terms(self) -> dict[str, object]:
        """Return what must be the same on all ranks."""
        said = alike(self)
        return {k: x.tolist() if isinstance(x, Tensor) else x for k, x in said.items()}


def asked_for(  # noqa: PLR0913
    scores: Scores,
    lamb: Any,
    tol: Any,
    max_iter: Any,
    marginal: Any = None,
    align: Any = None,
    start: Any = None,
) -> Asked:
    """Check what a call asks for, beside its scores."""
    shares = _shares(scores, marginal)
    if align is not None and align is not True:
        shares = align_marginal(shares, sound("align", _per_label("align", align, scores)))
    return Asked(
        temperature("lamb", lamb),
        checks.positive("tol", tol),
        checks.count("max_iter", max_iter),
        shares,
        None if start is None else _start(scores, start),
    )


def _shares(scores: Scores, marginal: Any) -> Tensor:
    """Return the share of each label, (..., K), in float64."""
    if marginal is None:
        marginal = torch.ones(scores.K, dtype=torch.float64, device=scores.facts.device)
    shares = checks.weights("marginal", _per_label("marginal", marginal, scores))
    return shares / shares.sum(-1, keepdim=True)


def _start(scores: Scores, potentials: Any) -> Tensor:
    t = _per_label("init", potentials, scores)
    bad = t.isnan() | (t == torch.inf)
    if bool(bad.any()):
        checks.refuse("init", "hold potentials below inf", t, bad)
    return t


def _per_label(name: str, x: Any, scores: Scores) -> Tensor:
    """Return numbers given per label as (..., K), in float64."""
    shape = (*scores.facts.batch_shape, scores.N, scores.K)
    return per_label(name, x, shape, scores.facts.device, "log_probs")
