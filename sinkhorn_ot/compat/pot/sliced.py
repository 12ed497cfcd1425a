"""POT's `sliced_wasserstein_distance`: clouds compared along lines."""

from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

import torch
from torch import Tensor

from sinkhorn_ot.derived import sliced_distance
from sinkhorn_ot.problem import needs

from .answers import absent, their
from .arrays import Costs, Log, Numbers, Seed, Weights
from .samples import points


@overload
def sliced_wasserstein_distance(
    X_s: Numbers, X_t: Numbers, a: Weights = ..., b: Weights = ..., n_projections: int = ...,
    p: float = ..., projections: Numbers | None = ..., seed: Seed = ..., log: Literal[False] = ...,
    scaler: None = ...,
) -> Costs: ...  # fmt: skip
@overload
def sliced_wasserstein_distance(
    X_s: Numbers, X_t: Numbers, a: Weights = ..., b: Weights = ..., n_projections: int = ...,
    p: float = ..., projections: Numbers | None = ..., seed: Seed = ..., *, log: Literal[True],
    scaler: None = ...,
) -> tuple[Costs, Log]: ...  # fmt: skip
def sliced_wasserstein_distance(  # noqa: PLR0913
    X_s: Numbers,
    X_t: Numbers,
    a: Weights = None,
    b: Weights = None,
    n_projections: int = 50,
    p: float = 2,
    projections: Numbers | None = None,
    seed: Seed = None,
    log: bool = False,
    scaler: None = None,
) -> Costs | tuple[Costs, Log]:
    """POT's `ot.sliced_wasserstein_distance`: the p-th root of the mean cost along lines.

    Args:
        X_s: Source points, (n, d).
        X_t: Target points, (m, d).
        a: Source weights, (n,); None means 1/n each.
        b: Target weights, (m,); None means 1/m each.
        n_projections: How many lines, drawn by POT from the seed.
        p: The power, at least 1.
        projections: Where the lines lead, (d, k), instead; their lengths count, as in POT.
        seed: Of the random lines, a number or a generator.
        log: Whether to return a dictionary too: projections and projected_emds.
        scaler: None.

    Returns:
        The distance, (), with derivatives by tensors that require grad.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: N. Bonneel, J. Rabin, G. Peyre, H. Pfister, Sliced and Radon Wasserstein barycenters of
    measures, 2015.
    """
    if scaler is not None:
        raise ValueError("scaler must be None: scale the points before the call")
    form, x, (y, a, b) = points(X_s, X_t, a, b)
    if x.ndim == 2 and y.ndim == 2 and x.shape[1] != y.shape[1]:
        raise ValueError(
            f"X_s and X_t must have points of one dimension, got {x.shape[1]} and {y.shape[1]}"
        )
    if projections is None:
        projections = _drawn(x, n_projections, seed)
    lines = torch.as_tensor(projections).mT
    with their({"x": "X_s", "y": "X_t", "directions": "projections"}):
        r = sliced_distance(x, y, a, b, directions=lines, p=p)
    # lines of any length
    length = lines.to(r.each.dtype).norm(dim=1)
    each = r.each * length**p
    value = each.mean()
    # where it is zero the root has a kink, whose derivative is told as zero
    distance = torch.where(value > 0, value, 1.0) ** (1 / p) * (value > 0)
    if not log:
        return form.out(distance)
    return form.out(distance), {"projections": projections, "projected_emds": form.out(each)}


def _drawn(x: Any, count: int, seed: Any) -> Any:
    """Return POT's lines of a seed, (d, k)."""
    # imported here: it is what only POT can tell
    with needs("ot"):
        from ot.backend import get_backend
        from ot.sliced import get_random_projections

    like = x.detach() if isinstance(x, Tensor) else x
    return get_random_projections(x.shape[1], count, seed, get_backend(like), like)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        raise absent(__name__, name)
