"""POT's `barycenter` and `barycenter_debiased` of histograms."""

from typing import Any, Literal, TypedDict, get_args, overload

from typing_extensions import Unpack

from sinkhorn_ot.compat.pot.answers import least, their
from sinkhorn_ot.compat.pot.arrays import Kind, Log, Numbers, Weights, known, taken
from sinkhorn_ot.derived import barycenter as solved
from sinkhorn_ot.problem import checks
from sinkhorn_ot.results import missed


Debiased = Literal["sinkhorn", "sinkhorn_log"]
Method = Literal[Debiased, "sinkhorn_stabilized"]


class Taken(TypedDict, total=False):
    """What POT's methods take beside."""

    tau: float


WORDS = {"histograms": "A", "cost": "M", "tol": "stopThr", "max_iter": "numItermax"}


@overload
def barycenter(
    A: Kind, M: Kind, reg: float, weights: Weights = ..., method: Method = ...,
    numItermax: int = ..., stopThr: float = ..., verbose: bool = ..., log: Literal[False] = ...,
    warn: bool = ..., **kwargs: Unpack[Taken],
) -> Kind: ...  # fmt: skip
@overload
def barycenter(
    A: Kind, M: Kind, reg: float, weights: Weights = ..., method: Method = ...,
    numItermax: int = ..., stopThr: float = ..., verbose: bool = ..., *, log: Literal[True],
    warn: bool = ..., **kwargs: Unpack[Taken],
) -> tuple[Kind, Log]: ...  # fmt: skip
def barycenter(  # noqa: PLR0913
    A: Numbers,
    M: Numbers,
    reg: float,
    weights: Weights = None,
    method: Method = "sinkhorn",
    numItermax: int = 10000,
    stopThr: float = 0.0001,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    **kwargs: Unpack[Taken],
) -> Numbers | tuple[Numbers, Log]:
    """POT's `ot.bregman.barycenter`: the histogram that is nearest to several.

    Args:
        A: Histograms of one mass, (n, k), one a column.
        M: Costs from the points of the histograms to those of the barycentre, (n, m).
        reg: Regularisation in units of the cost, above zero.
        weights: Weights of the histograms, (k,); None means 1/k each.
        method: One of POT's names, in any case; all are answered by one solver.
        numItermax: Sweeps allowed.
        stopThr: Relative L1 error between the column sums of plans and the barycentre to reach.
        verbose: Taken, and nothing is shown.
        log: Whether to return a dictionary too.
        warn: Whether to warn, `ConvergenceWarning`, where stopThr was not reached.
        kwargs: `tau`: taken, and not needed.

    Returns:
        The barycentre, (m,), with derivatives by tensors that require grad; with log=True beside it
        a dictionary: err, niter, and our `Barycenter` as result.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: J.-D. Benamou, G. Carlier, M. Cuturi, L. Nenna, G. Peyre, Iterative Bregman projections
    for regularized transportation problems, SIAM J. Sci. Comput. 2015.
    """
    _named(method, get_args(Method), kwargs)
    how = {"tol": stopThr, "max_iter": numItermax, "debiased": False}
    return _found((A, M, weights), reg, how, log, warn)


@overload
def barycenter_debiased(
    A: Kind, M: Kind, reg: float, weights: Weights = ..., method: Debiased = ...,
    numItermax: int = ..., stopThr: float = ..., verbose: bool = ..., log: Literal[False] = ...,
    warn: bool = ..., **kwargs: Unpack[Taken],
) -> Kind: ...  # fmt: skip
@overload
def barycenter_debiased(
    A: Kind, M: Kind, reg: float, weights: Weights = ..., method: Debiased = ...,
    numItermax: int = ..., stopThr: float = ..., verbose: bool = ..., *, log: Literal[True],
    warn: bool = ..., **kwargs: Unpack[Taken],
) -> tuple[Kind, Log]: ...  # fmt: skip
def barycenter_debiased(  # noqa: PLR0913
    A: Numbers,
    M: Numbers,
    reg: float,
    weights: Weights = None,
    method: Debiased = "sinkhorn",
    numItermax: int = 10000,
    stopThr: float = 0.0001,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    **kwargs: Unpack[Taken],
) -> Numbers | tuple[Numbers, Log]:
    """POT's `ot.bregman.barycenter_debiased`: the same without the blur of regularisation.

    Args:
        A: Histograms of one mass, (n, k), one a column.
        M: Costs, (n, n), symmetric.
        reg: Regularisation in units of the cost, above zero.
        weights: Weights of the histograms, (k,); None means 1/k each.
        method: "sinkhorn" or "sinkhorn_log", in any case; both have one answer.
        numItermax: Sweeps allowed.
        stopThr: Relative L1 error to reach.
        verbose: Taken, and nothing is shown.
        log: Whether to return a dictionary too, as `barycenter` does.
        warn: Whether to warn, `ConvergenceWarning`, where stopThr was not reached.
        kwargs: None.

    Returns:
        The barycentre, (n,); with log=True a dictionary beside it.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: H. Janati, M. Cuturi, A. Gramfort, Debiased Sinkhorn barycenters, ICML 2020.
    """
    _named(method, get_args(Debiased), kwargs)
    how = {"tol": stopThr, "max_iter": numItermax, "debiased": True}
    return _found((A, M, weights), reg, how, log, warn)


def _named(method: Any, names: tuple[str, ...], options: Taken) -> None:
    known(options, ("tau",))
    checks.one_of("method", method.lower() if isinstance(method, str) else method, names)


def _found(
    given: tuple[Any, Any, Any], reg: Any, how: dict[str, Any], log: bool, warn: bool
) -> Any:
    A, M, weights = given
    form, M, (A, weights) = taken(M, A, weights)
    if A is None or A.ndim != 2:
        shape = None if A is None else tuple(A.shape)
        raise ValueError(f"A must hold histograms as columns, (n, k), got {shape}")
    checks.number("stopThr", how["tol"])
    how["tol"] = max(how["tol"], least(M))
    with their(WORDS):
        r = solved(A.T, M, reg, weights=weights, on_fail="ignore", **how)
    if warn and not bool(r.converged.all()):
        missed(f"Sinkhorn did not converge. {r.message}", r, "warn")
    q = form.out(r.histogram)
    if not log:
        return q
    return q, {"err": [float(r.marginal_error)], "niter": int(r.n_iter), "result": r}
