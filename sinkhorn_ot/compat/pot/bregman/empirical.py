"""POT's `empirical_sinkhorn` and its relatives: entropic plans between clouds of points."""

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from torch import Tensor
from typing_extensions import Unpack

from sinkhorn_ot.compat.pot.answers import (
    How,
    answered,
    logged,
    potentials,
    scaled,
    their,
    two_sides,
)
from sinkhorn_ot.compat.pot.arrays import Costs, Form, Kind, Log, Numbers, Weights, known
from sinkhorn_ot.compat.pot.result import LazyPlan
from sinkhorn_ot.compat.pot.samples import METRICS, costs, points
from sinkhorn_ot.problem import PointCloud, checks
from sinkhorn_ot.results import Transport

from .scaling import METHODS, OPTIONS, Method, Taken


WORDS = {
    "cost": "metric",
    "x": "X_s",
    "y": "X_t",
    "tol": "stopThr",
    "max_iter": "numIterMax",
    "init": "warmstart",
}


class Options(Taken, total=False):
    """The same, and whose method's they are."""

    method: Method


@overload
def empirical_sinkhorn(
    X_s: Kind, X_t: Kind, reg: float, a: Weights = ..., b: Weights = ...,
    metric: str = ..., numIterMax: int = ..., stopThr: float = ..., isLazy: bool = ...,
    batchSize: object = ..., verbose: bool = ..., log: Literal[False] = ..., warn: bool = ...,
    warmstart: Sequence[Any] | None = ..., **kwargs: Unpack[Options],
) -> Kind: ...  # fmt: skip
@overload
def empirical_sinkhorn(
    X_s: Kind, X_t: Kind, reg: float, a: Weights = ..., b: Weights = ...,
    metric: str = ..., numIterMax: int = ..., stopThr: float = ..., isLazy: bool = ...,
    batchSize: object = ..., verbose: bool = ..., *, log: Literal[True], warn: bool = ...,
    warmstart: Sequence[Any] | None = ..., **kwargs: Unpack[Options],
) -> tuple[Kind, Log]: ...  # fmt: skip
def empirical_sinkhorn(  # noqa: PLR0913
    X_s: Numbers,
    X_t: Numbers,
    reg: float,
    a: Weights = None,
    b: Weights = None,
    metric: str = "sqeuclidean",
    numIterMax: int = 10000,
    stopThr: float = 1e-09,
    isLazy: bool = False,
    batchSize: object = 100,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    warmstart: Sequence[Any] | None = None,
    **kwargs: Unpack[Options],
) -> Numbers | tuple[Numbers, Log]:
    """POT's `ot.bregman.empirical_sinkhorn`: the entropic plan between two clouds.

    Args:
        X_s: Source points, (n, d).
        X_t: Target points, (m, d).
        reg: Regularisation in units of the cost, above zero.
        a: Source weights, (n,); None means 1/n each.
        b: Target weights, (m,); None means 1/m each.
        metric: one of `samples.METRICS`; for arrays, and not lazily, any of SciPy's.
        numIterMax: Sweeps allowed.
        stopThr: Relative L1 error of the marginals to reach.
        isLazy: Whether to store neither costs nor plan, and to return scalings instead.
        batchSize: Taken, and not needed.
        verbose: Whether to show a progress bar.
        log: Whether to return a dictionary too.
        warn: Whether to warn, `ConvergenceWarning`, where stopThr was not reached.
        warmstart: Logarithms of scalings, (n,) and (m,).
        kwargs: Those of `sinkhorn`, and `method`.

    Returns:
        The plan, (n, m); with isLazy=True both logarithms of scalings. With log=True a dictionary
        behind it, with the keys of `sinkhorn`, or lazily u and v for those logarithms, and
        lazy_plan.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: as for `sinkhorn`.
    """
    how = How(stopThr, numIterMax, verbose, warn)
    form, r, given = _found(X_s, X_t, reg, a, b, metric, isLazy, how, warmstart, kwargs)
    if not isLazy:
        P = form.out(r.plan)
        return (P, _written(form, r, given, False)) if log else P
    sides = tuple(form.out(t) for t in scaled(r, *given))
    return (*sides, _written(form, r, given, True)) if log else sides


@overload
def empirical_sinkhorn2(
    X_s: Numbers, X_t: Numbers, reg: float, a: Weights = ..., b: Weights = ...,
    metric: str = ..., numIterMax: int = ..., stopThr: float = ..., isLazy: bool = ...,
    batchSize: object = ..., verbose: bool = ..., log: Literal[False] = ..., warn: bool = ...,
    warmstart: Sequence[Any] | None = ..., **kwargs: Unpack[Options],
) -> Costs: ...  # fmt: skip
@overload
def empirical_sinkhorn2(
    X_s: Numbers, X_t: Numbers, reg: float, a: Weights = ..., b: Weights = ...,
    metric: str = ..., numIterMax: int = ..., stopThr: float = ..., isLazy: bool = ...,
    batchSize: object = ..., verbose: bool = ..., *, log: Literal[True], warn: bool = ...,
    warmstart: Sequence[Any] | None = ..., **kwargs: Unpack[Options],
) -> tuple[Costs, Log]: ...  # fmt: skip
def empirical_sinkhorn2(  # noqa: PLR0913
    X_s: Numbers,
    X_t: Numbers,
    reg: float,
    a: Weights = None,
    b: Weights = None,
    metric: str = "sqeuclidean",
    numIterMax: int = 10000,
    stopThr: float = 1e-09,
    isLazy: bool = False,
    batchSize: object = 100,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    warmstart: Sequence[Any] | None = None,
    **kwargs: Unpack[Options],
) -> Costs | tuple[Costs, Log]:
    """POT's `ot.bregman.empirical_sinkhorn2`: what the entropic plan between two clouds costs.

    Args:
        X_s: Source points, (n, d).
        X_t: Target points, (m, d).
        reg: Regularisation in units of the cost, above zero.
        a: Source weights, (n,); None means 1/n each.
        b: Target weights, (m,); None means 1/m each.
        metric: As `empirical_sinkhorn` takes it.
        numIterMax: Sweeps allowed.
        stopThr: Relative L1 error of the marginals to reach.
        isLazy: Whether to store neither costs nor plan.
        batchSize: Taken, and not needed.
        verbose: Whether to show a progress bar.
        log: Whether to return a dictionary too, as `empirical_sinkhorn` does.
        warn: Whether to warn, `ConvergenceWarning`, where stopThr was not reached.
        warmstart: Logarithms of scalings, (n,) and (m,).
        kwargs: Those of `sinkhorn`, and `method`.

    Returns:
        `<P, M>`, (); with log=True a dictionary beside it.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: as for `sinkhorn`.
    """
    how = How(stopThr, numIterMax, verbose, warn)
    form, r, given = _found(X_s, X_t, reg, a, b, metric, isLazy, how, warmstart, kwargs)
    cost = form.out(r.value_linear)
    return (cost, _written(form, r, given, isLazy)) if log else cost


@overload
def empirical_sinkhorn_divergence(
    X_s: Numbers, X_t: Numbers, reg: float, a: Weights = ..., b: Weights = ...,
    metric: str = ..., numIterMax: int = ..., stopThr: float = ..., verbose: bool = ...,
    log: Literal[False] = ..., warn: bool = ..., warmstart: Sequence[Any] | None = ...,
    **kwargs: Unpack[Options],
) -> Costs: ...  # fmt: skip
@overload
def empirical_sinkhorn_divergence(
    X_s: Numbers, X_t: Numbers, reg: float, a: Weights = ..., b: Weights = ...,
    metric: str = ..., numIterMax: int = ..., stopThr: float = ..., verbose: bool = ..., *,
    log: Literal[True], warn: bool = ..., warmstart: Sequence[Any] | None = ...,
    **kwargs: Unpack[Options],
) -> tuple[Costs, Log]: ...  # fmt: skip
def empirical_sinkhorn_divergence(  # noqa: PLR0913
    X_s: Numbers,
    X_t: Numbers,
    reg: float,
    a: Weights = None,
    b: Weights = None,
    metric: str = "sqeuclidean",
    numIterMax: int = 10000,
    stopThr: float = 1e-09,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    warmstart: Sequence[Any] | None = None,
    **kwargs: Unpack[Options],
) -> Costs | tuple[Costs, Log]:
    """POT's `ot.bregman.empirical_sinkhorn_divergence`: a difference of what plans cost.

    It is that of `<P, M>`, and not the Sinkhorn divergence of Feydy et al., which differs by the
    entropies and is `sinkhorn_ot.sinkhorn_divergence`.

    Args:
        X_s: Source points, (n, d).
        X_t: Target points, (m, d).
        reg: Regularisation in units of the cost, above zero.
        a: Source weights, (n,); None means 1/n each.
        b: Target weights, (m,); None means 1/m each.
        metric: As `empirical_sinkhorn` takes it.
        numIterMax: Sweeps allowed in each problem.
        stopThr: Relative L1 error of the marginals to reach.
        verbose: Whether to show a progress bar.
        log: Whether to return a dictionary too.
        warn: Whether to warn, `ConvergenceWarning`, where stopThr was not reached.
        warmstart: Logarithms of scalings, (n,) and (m,), of the clouds.
        kwargs: Those of `sinkhorn`, and `method`.

    Returns:
        The difference, (), at least zero; with log=True a dictionary beside it, which has the
        costs and logs of the three problems.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: A. Genevay, G. Peyre, M. Cuturi, Learning generative models with Sinkhorn divergences,
    AISTATS 2018.
    """
    u, v = (None, None) if warmstart is None else warmstart
    clouds = {
        "ab": (X_s, X_t, a, b, (u, v)),
        "a": (X_s, X_s, a, a, (u, u)),
        "b": (X_t, X_t, b, b, (v, v)),
    }
    loss, logs = {}, {}
    for name, (x, y, left, right, start) in clouds.items():
        loss[name], logs[name] = empirical_sinkhorn2(
            x,
            y,
            reg,
            left,
            right,
            metric,
            numIterMax,
            stopThr,
            verbose=verbose,
            warn=warn,
            log=True,
            warmstart=None if warmstart is None else start,
            **kwargs,
        )
    apart = loss["ab"] - (loss["a"] + loss["b"]) / 2
    apart = apart.clamp(min=0) if isinstance(apart, Tensor) else np.maximum(0, apart)
    if not log:
        return apart
    said = {f"sinkhorn_loss_{name}": x for name, x in loss.items()}
    return apart, said | {f"log_sinkhorn_{name}": x for name, x in logs.items()}


def _found(  # noqa: PLR0913
    X_s: Any,
    X_t: Any,
    reg: Any,
    a: Any,
    b: Any,
    metric: str,
    lazy: bool,
    how: How,
    warmstart: Any,
    options: Options,
) -> tuple[Form, Transport, tuple[Any, Any, Any]]:
    known(options, (*OPTIONS, "method"))
    checks.one_of("method", options.get("method", METHODS[0]), METHODS)
    form, x, (y, a, b) = points(X_s, X_t, a, b)
    if lazy:
        checks.one_of("metric", metric, tuple(METRICS))
    with their(WORDS):
        cost = PointCloud(x, y, METRICS[metric]) if lazy else costs(form, x, y, metric)
    init = None
    if warmstart is not None:
        start = two_sides("warmstart", warmstart, cost.shape)
        sides = zip(start, (a, b), cost.shape, strict=True)
        init = tuple(potentials(u, w, size, float(reg)) for u, w, size in sides)
    return form, answered(cost, a, b, reg, how, WORDS, init=init), (a, b, reg)


def _written(form: Form, r: Transport, given: tuple[Any, Any, Any], lazy: bool) -> dict[str, Any]:
    log_u, log_v = scaled(r, *given)
    found = logged(form, r, log_u, log_v, given[2])
    found["warmstart"] = found["log_u"], found["log_v"]
    if lazy:
        found |= {"u": found["log_u"], "v": found["log_v"], "lazy_plan": LazyPlan(form, r)}
    return found
