"""Transport of samples to labels in equal shares, to a tolerance: by one process or by many.

Its answer is one potential per label, with which softmax(lamb (S + g)) gives every label its share.
"""

import math
import warnings

import torch
from torch import Tensor

from sinkhorn_ot.problem import Unresolved
from sinkhorn_ot.results import ConvergenceWarning, Status
from sinkhorn_ot.solve import MAX_ITER, solve
from sinkhorn_ot.sweeps import Ranks

from .arguments import levelled
from .sela import Scores, asked_for, solved


def potentials(
    name: str,
    S: Tensor,
    lamb: float,
    ranks: Ranks,
    unresolved: str,
    *,
    mask: Tensor | None = None,
    tol: float | None = None,
    max_iter: int = MAX_ITER,
) -> Tensor:
    """Return the labels' potentials g, (..., K), float64; warn where they are not within `tol`.

    Args:
        name: What the caller calls the scores.
        S: Scores, (..., N, K), of this rank's samples.
        lamb: One over the regularisation.
        ranks: Who holds the other samples.
        unresolved: What `resolved` says to this caller.
        mask: Samples that count, (..., N); None for all. Where none does, any plan will do.
        tol: Relative L1 error of the shares to reach; None is the default of `solve`.
        max_iter: Sweeps allowed.
    """
    if ranks.alone:
        weights = None
        if mask is not None:
            S = levelled(S, mask)
            weights = (mask | ~mask.any(-1, keepdim=True)).double()
            weights /= weights.sum(-1, keepdim=True)
        try:
            return solve(-S, weights, reg=1.0 / lamb, tol=tol, max_iter=max_iter).g.double()
        except Unresolved as error:
            raise error.told(unresolved) from None
    *batch, N, K = S.shape
    if tol is None:
        tol = 1e-9 if S.dtype == torch.float64 else 1e-6
    if mask is None:
        return _over_ranks(name, S, lamb, ranks, unresolved, tol, max_iter)
    # each problem has other samples that count
    flat = math.prod(batch)
    problems = zip(S.reshape(flat, N, K), mask.reshape(flat, N), strict=True)
    found = [
        _over_ranks(name, s[keep], lamb, ranks, unresolved, tol, max_iter) for s, keep in problems
    ]
    return torch.stack(found).reshape(*batch, K)


def _over_ranks(  # noqa: PLR0913
    name: str, S: Tensor, lamb: float, ranks: Ranks, unresolved: str, tol: float, max_iter: int
) -> Tensor:
    """Return the labels' potentials as SeLa finds them, from rows that many hold."""
    *batch, N, K = S.shape
    if ranks.total(N) == 0:
        return torch.zeros(*batch, K, dtype=torch.float64, device=S.device)
    scores = Scores.read(S, ranks, name)
    try:
        found = solved(scores, asked_for(scores, lamb, tol, max_iter))
    except Unresolved as error:
        raise error.told(unresolved) from None
    if any(status is not Status.CONVERGED for status in found.status):
        assert found.error is not None
        worst = int(found.error.argmax())
        reached = f"Reached marginal_error {float(found.error[worst]):.3g}"
        said = f"{found.status[worst].value} {reached} after {int(found.n_iter[worst])} iterations."
        warnings.warn(said, ConvergenceWarning, stacklevel=5)
    return (found.v.double() / lamb).reshape(*batch, K)
