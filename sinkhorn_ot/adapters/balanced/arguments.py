"""What `balanced_labels` is given, checked: scores, counts and a start."""

import math
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks


# what scores of all samples may sum to, in size: differences of two such sums are numbers
_LARGEST = 1e307


def below_inf(S: Tensor, all_: bool) -> None:
    """Require numbers below inf, and a label for every sample if all must have one."""
    best = S.amax(-1)
    if not bool((best < math.inf).all()):
        checks.refuse("scores", "be a number below inf", S, S.isnan() | (math.inf == S))
    if all_ and not bool((best > -math.inf).all()):
        at = checks.first_index(best == -math.inf)
        where = at[0] if len(at) == 1 else at
        raise ValueError(
            f"scores must allow every sample some label, got -inf all along row {where}"
        )


def summable(S: Tensor) -> None:
    """Require scores whose sums are numbers; those of narrower dtypes always are."""
    if S.dtype != torch.float64:
        return
    most = _LARGEST / S.shape[-2]
    # nearly always true of all, and quicker to see than of which
    low, high = S.aminmax()
    if bool(low >= -most) and bool(high <= most):
        return
    bad = S.isfinite() & (S.abs() > most)
    if bool(bad.any()):
        rule = f"be at most {most:.3g} in size for float64 to hold the sum of {S.shape[-2]} of them"
        checks.refuse("scores", rule, S, bad)


def counted(counts: Any, S: Tensor, placed: int) -> Tensor:
    """Return how many samples each label must have at least, (B, K), of those that have one."""
    N, K = S.shape[-2:]
    if counts is None:
        return torch.full((1, K), placed // K, device="cpu").expand(S.shape[:-2].numel(), K)
    t = checks.numbers("counts", counts).cpu().to(torch.int64)
    if bool((t < 0).any()):
        checks.refuse("counts", "be non-negative", t, t < 0)
    t = _per_problem("counts", t, S)
    if bool((t.sum(-1) != placed).any()):
        total = int(t.sum(-1)[t.sum(-1) != placed][0])
        what = f"the {N} samples" if placed == N else f"k = {placed}"
        hint = (
            f": k={total} leaves the other samples without a label" if total < placed == N else ""
        )
        raise ValueError(f"counts must sum to {what}, got a sum of {total}{hint}")
    return t


def started(init: Any, S: Tensor) -> Tensor | None:
    """Return the prices of an earlier answer, (B, K); a label that had none starts at zero."""
    if init is None:
        return None
    t = checks.present("init", checks.tensor("init", getattr(init, "potentials", init)))
    t = t.cpu().double()
    bad = t.isnan() | (t == math.inf)
    if bool(bad.any()):
        checks.refuse("init", "hold potentials below inf", t, bad)
    return _per_problem("init", t.masked_fill(t == -math.inf, 0.0), S)


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
