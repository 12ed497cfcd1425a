"""POT's `ot.partial`: transport of a part of the mass, exactly and with entropy."""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypedDict, get_args, overload

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack

from sinkhorn_ot.problem import checks, shown

from .answers import How, absent, answered, references
from .arrays import Costs, Form, Kind, Log, Numbers, Weights, taken
from .lp import emd, emd2


Method = Literal["sinkhorn", "sinkhorn_log"]
# how far a mass may be above what there is by rounding
_ROUNDING = 1e-9
WORDS = {"cost": "M", "mass": "m", "tol": "stopThr", "max_iter": "numItermax"}


class Limits(TypedDict, total=False):
    """Options of `emd` that are taken here."""

    numItermax: int
    numThreads: object
    center_dual: bool


@overload
def partial_wasserstein(
    a: Weights, b: Weights, M: Kind, m: float | None = ..., nb_dummies: object = ...,
    log: Literal[False] = ..., **kwargs: Unpack[Limits],
) -> Kind: ...  # fmt: skip
@overload
def partial_wasserstein(
    a: Weights, b: Weights, M: Kind, m: float | None = ..., nb_dummies: object = ..., *,
    log: Literal[True], **kwargs: Unpack[Limits],
) -> tuple[Kind, Log]: ...  # fmt: skip
def partial_wasserstein(
    a: Weights,
    b: Weights,
    M: Numbers,
    m: float | None = None,
    nb_dummies: object = 1,
    log: bool = False,
    **kwargs: Unpack[Limits],
) -> Numbers | tuple[Numbers, Log]:
    """POT's `ot.partial.partial_wasserstein`: the exact plan that moves a stated mass.

    Args:
        a: Source weights, (n,); [] means 1/n each.
        b: Target weights, (m,); [] means 1/m each.
        M: Costs, (n, m).
        m: The mass to move; None is all that both sides have.
        nb_dummies: Taken, and not needed.
        log: Whether to return a dictionary too.
        kwargs: `numItermax`, `numThreads`, `center_dual`, as `emd` takes them.

    Returns:
        The plan, (n, m); with log=True beside it a dictionary of cost and partial_w_dist, u, v,
        warning, result_code.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: L. Chapel, M. Alaya, G. Gasso, Partial optimal transport with applications on
    positive-unlabeled learning, NeurIPS 2020.
    """
    p = _posed(a, b, M, m)
    if not log:
        return emd(*p.given, **kwargs)[: p.n, : p.k]
    cost, found = p.solved(kwargs)
    return found.pop("G"), found | {"cost": cost, "partial_w_dist": cost}


@overload
def partial_wasserstein2(
    a: Weights, b: Weights, M: Numbers, m: float | None = ..., nb_dummies: object = ...,
    log: Literal[False] = ..., **kwargs: Unpack[Limits],
) -> Costs: ...  # fmt: skip
@overload
def partial_wasserstein2(
    a: Weights, b: Weights, M: Numbers, m: float | None = ..., nb_dummies: object = ..., *,
    log: Literal[True], **kwargs: Unpack[Limits],
) -> tuple[Costs, Log]: ...  # fmt: skip
def partial_wasserstein2(
    a: Weights,
    b: Weights,
    M: Numbers,
    m: float | None = None,
    nb_dummies: object = 1,
    log: bool = False,
    **kwargs: Unpack[Limits],
) -> Costs | tuple[Costs, Log]:
    """POT's `ot.partial.partial_wasserstein2`: what moving a stated mass costs.

    Args:
        a: Source weights, (n,); [] means 1/n each.
        b: Target weights, (m,); [] means 1/m each.
        M: Costs, (n, m).
        m: The mass to move; None is all that both sides have.
        nb_dummies: Taken, and not needed.
        log: Whether to return a dictionary too, with the plan as T.
        kwargs: As `partial_wasserstein` takes them.

    Returns:
        The cost, with derivatives by tensors that require grad; with log=True a dictionary beside.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: as for `partial_wasserstein`.
    """
    p = _posed(a, b, M, m)
    if not log:
        # what stays costs nothing
        return emd2(*p.given, **kwargs)
    cost, found = p.solved(kwargs)
    return cost, found | {"cost": cost, "partial_w_dist": cost, "T": found.pop("G")}


@overload
def entropic_partial_wasserstein(
    a: Weights, b: Weights, M: Kind, reg: float, m: float | None = ...,
    method: Method = ..., numItermax: int = ..., stopThr: float = ..., verbose: bool = ...,
    log: Literal[False] = ...,
) -> Kind: ...  # fmt: skip
@overload
def entropic_partial_wasserstein(
    a: Weights, b: Weights, M: Kind, reg: float, m: float | None = ...,
    method: Method = ..., numItermax: int = ..., stopThr: float = ..., verbose: bool = ..., *,
    log: Literal[True],
) -> tuple[Kind, Log]: ...  # fmt: skip
def entropic_partial_wasserstein(  # noqa: PLR0913
    a: Weights,
    b: Weights,
    M: Numbers,
    reg: float,
    m: float | None = None,
    method: Method = "sinkhorn",
    numItermax: int = 1000,
    stopThr: float = 1e-100,
    verbose: bool = False,
    log: bool = False,
) -> Numbers | tuple[Numbers, Log]:
    """POT's `ot.partial.entropic_partial_wasserstein`: the entropic plan of a stated mass.

    Args:
        a: Source weights, (n,); [] means 1/n each.
        b: Target weights, (m,); [] means 1/m each.
        M: Costs, (n, m).
        reg: Regularisation in units of the cost, above zero: the entropy is that of the plan.
        m: The mass to move; None is all that both sides have.
        method: "sinkhorn" or "sinkhorn_log", in any case; both have one answer.
        numItermax: Sweeps allowed.
        stopThr: Relative L1 error of the marginals to reach.
        verbose: Whether to show a progress bar.
        log: Whether to return a dictionary too.

    Returns:
        The plan, (n, m); with log=True beside it a dictionary of partial_w_dist, err, and our
        `Transport` as result, None where nothing is moved.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: J.-D. Benamou, G. Carlier, M. Cuturi, L. Nenna, G. Peyre, Iterative Bregman projections
    for regularized transportation problems, SIAM J. Sci. Comput. 2015.
    """
    checks.one_of("method", method.lower() if isinstance(method, str) else method, get_args(Method))
    form, M, (a, b) = taken(M, a, b)
    mass = _mass(m, *(_total(w) for w in (a, b)))
    how = How(stopThr, numItermax, verbose)
    # against ones, as entropy is
    C = references(M, a, b, checks.positive("reg", reg), torch.ones((), dtype=torch.float64))
    # there is one plan that moves nothing
    r = answered(C, a, b, reg, how, WORDS, mass=mass) if mass else None
    P = form.out(torch.zeros_like(C) if r is None else r.plan)
    if not log:
        return P
    err = 0.0 if r is None else float(r.marginal_error)
    return P, {"partial_w_dist": (P * M).sum(), "err": [err], "result": r}


entropic_partial_wasserstein_logscale = partial(entropic_partial_wasserstein, method="sinkhorn_log")


@shown
class _Widened(NamedTuple):
    """A partial problem as a whole one: one more point on each side takes what stays.

    Attributes:
        n: Sources without it.
        k: Targets without it.
        given: Weights and costs with it.
    """

    n: int
    k: int
    given: tuple[Any, Any, Any]

    def solved(self, options: Limits) -> tuple[Any, dict[str, Any]]:
        """Return what moving a part costs, and what is known of it."""
        cost, found = emd2(*self.given, log=True, return_matrix=True, **options)
        found["u"], found["v"] = found["u"][: self.n], found["v"][: self.k]
        return cost, found | {"G": found["G"][: self.n, : self.k]}


def _posed(a: Any, b: Any, M: Any, m: Any) -> _Widened:
    form, M, (a, b) = taken(M, a, b)
    left, right = _total(a), _total(b)
    mass = _mass(m, left, right)
    n, k = M.shape
    a, b = (_full(w, size, M) for w, size in zip((a, b), (n, k), strict=True))
    a, b = _with(a, right - mass, form), _with(b, left - mass, form)
    return _Widened(n, k, (a, b, _widened(M, form)))


def _mass(m: Any, left: float, right: float) -> float:
    """Return the mass to move, which must be there."""
    least = min(left, right)
    if m is None:
        return least
    found = checks.number("m", m)
    if not 0 <= found <= least * (1 + _ROUNDING):
        raise ValueError(f"m must be from 0 to the lesser mass, {least:.9g}, got {found:.9g}")
    return min(found, least)


def _total(w: Any) -> float:
    return 1.0 if w is None else float(w.sum())


def _full(w: Any, size: int, M: Any) -> Any:
    if w is not None:
        return w
    return M.new_full((size,), 1 / size) if isinstance(M, Tensor) else np.full(size, 1 / size)


def _with(w: Any, more: float, form: Form) -> Any:
    """Return weights with one more."""
    more = max(more, 0.0)
    return torch.cat([w, w.new_full((1,), more)]) if form.tensors else np.append(w, more)


def _widened(M: Any, form: Form) -> Any:
    """Return costs of one more row and column of zeros that meet at a price no plan pays."""
    held = M.detach() if form.tensors else M
    high = float(abs(held).max()) or 1.0
    if form.tensors:
        wide = torch.nn.functional.pad(M, (0, 1, 0, 1))
        price = torch.zeros_like(wide)
        price[-1, -1] = 3 * high
        return wide + price
    held = np.pad(M, (0, 1))
    held[-1, -1] = 3 * high
    return held


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        raise absent(__name__, name)
