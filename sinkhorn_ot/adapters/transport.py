"""Transport of samples to labels in equal shares, to a tolerance: by one process or by many.

Its answer is one potential per label, with which softmax(lamb (S + g)) gives every label its share.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import Unresolved
from sinkhorn_ot.results import Entropic, Status
from sinkhorn_ot.solve import MAX_ITER, solve
from sinkhorn_ot.sweeps import Ranks

from .arguments import levelled
from .sela import Asked, Ending, Scores, asked_for, joined, solved


def potentials(  # noqa: PLR0913
    name: str,
    S: Tensor,
    lamb: float,
    ranks: Ranks,
    unresolved: str,
    *,
    mask: Tensor | None = None,
    marginal: Tensor | None = None,
    tol: float | None = None,
    max_iter: int = MAX_ITER,
) -> tuple[Tensor, Ending]:
    """Return the labels' potentials g, (..., K), float64, and how the solve for them ended.

    Args:
        name: What the caller calls the scores.
        S: Scores, (..., N, K), of this rank's samples.
        lamb: One over the regularisation.
        ranks: Who holds the other samples.
        unresolved: What `resolved` says to this caller.
        mask: Samples that count, (..., N); None for all. Where none does, any plan will do.
        marginal: Share of each label, (..., K); None for equal shares.
        tol: Relative L1 error of the shares to reach; None is the default of `solve`.
        max_iter: Sweeps allowed.
    """
    *batch, N, K = S.shape
    if ranks.alone:
        weights = None
        if mask is not None:
            S = levelled(S, mask)
            weights = (mask | ~mask.any(-1, keepdim=True)).double()
            weights /= weights.sum(-1, keepdim=True)
        try:
            limits: dict[str, Any] = {"tol": tol, "max_iter": max_iter}
            r = solve(-S, weights, marginal, 1.0 / lamb, on_fail="ignore", **limits)
        except Unresolved as error:
            raise error.worded(unresolved) from None
        assert isinstance(r.coupling, Entropic)
        # with the weights, as the solver's plan has them; those of equal shares change nothing
        g = (r.coupling.v.double() / lamb).reshape(*batch, K)
        return g, Ending(r.statuses, r.marginal_error, r.n_iter)
    if tol is None:
        tol = 1e-9 if S.dtype == torch.float64 else 1e-6

    def over_ranks(S: Tensor, r: Tensor | None) -> tuple[Tensor, Ending]:
        if ranks.total(S.shape[-2]) == 0:
            none = torch.zeros(*S.shape[:-2], K, dtype=torch.float64, device=S.device)
            zeros = none.new_zeros(math.prod(S.shape[:-2]))
            return none, Ending([Status.CONVERGED] * len(zeros), zeros, zeros)
        scores = Scores.read(S, ranks, name)
        asked = replace(asked_for(scores, lamb, tol, max_iter, r), unresolved=unresolved)
        return _over_ranks(scores, asked)

    if mask is None:
        return over_ranks(S, marginal)
    # each problem has other samples that count
    flat = math.prod(batch)
    shares = [None] * flat if marginal is None else [*marginal.reshape(flat, K)]
    problems = zip(S.reshape(flat, N, K), mask.reshape(flat, N), shares, strict=True)
    found = [over_ranks(s[keep], r) for s, keep, r in problems]
    return torch.stack([g for g, _ in found]).reshape(*batch, K), joined([one for _, one in found])


def _over_ranks(scores: Scores, asked: Asked) -> tuple[Tensor, Ending]:
    """Return the labels' potentials as SeLa finds them, from rows that many hold."""
    found = solved(scores, asked)
    assert found.error is not None
    g = (found.v.double() / asked.lamb).reshape(asked.marginal.shape)
    return g, Ending(found.status, found.error, found.n_iter)
