"""What a call of SeLa asks for beside its scores: checked, and the same on all ranks."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import alike, sound, temperature
from sinkhorn_ot.problem import checks, shown

from .data import Scores
from .shares import align_marginal


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
    """

    lamb: float
    tol: float
    max_iter: int
    marginal: Tensor
    init: Tensor | None

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
    t = x if isinstance(x, Tensor) and not x.is_floating_point() else checks.tensor(name, x)
    checks.same_device(name, t, scores.facts.device, "log_probs")
    shape = (*scores.facts.batch_shape, scores.K)
    try:
        if t.shape[-1:] != (scores.K,):
            raise RuntimeError
        return t.double().expand(shape)
    except RuntimeError:
        fit = (*shape[:-1], scores.N, scores.K)
        raise ValueError(
            f"{name} must have shape ({scores.K},) or (..., {scores.K}) to fit log_probs of {fit}, "
            f"got {tuple(t.shape)}"
        ) from None
