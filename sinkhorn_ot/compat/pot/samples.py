"""POT's `solve_sample`: the same of samples, whose costs need not be stored."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.exact import solve_exact
from sinkhorn_ot.problem import MetricName as Ours
from sinkhorn_ot.problem import PointCloud, checks, needs

from .answers import How, answered, their
from .arrays import Form, Kind, Penalties, Seed, Weights, taken
from .result import LazyPlan, OTResult
from .solvers import Grad, Method, PenaltyType, RegType, entropic, reg_kind, solve


# POT's names of metrics that clouds have
MetricName = Literal["sqeuclidean", "euclidean", "cosine", "cityblock", "chebyshev"]
METRICS: dict[str, Ours] = {
    "sqeuclidean": "sqeuclidean",
    "euclidean": "euclidean",
    "cosine": "cosine",
    "cityblock": "manhattan",
    "chebyshev": "chebyshev",
}
# methods of other problems, or of approximations
_THEIRS = (
    "gaussian",
    "gaussian_hd",
    "lowrank",
    "nystroem",
    "factored",
    "geomloss",
    "geomloss_auto",
    "geomloss_tensorized",
    "geomloss_online",
    "geomloss_multiscale",
    "max_sliced",
    "bsp",
)


def points(x: Any, y: Any, a: Any, b: Any) -> tuple[Form, Any, list[Any]]:
    """Return how to answer, and points and weights as `arrays.taken` does; both in one dtype."""
    form, x, (y, a, b) = taken(x, y, a, b)
    if y is None:
        raise ValueError("points must be given of both sides, got none of one")
    return form, x, [y.to(form.dtype) if form.tensors else np.asarray(y, form.dtype), a, b]


def costs(form: Form, x: Any, y: Any, metric: Any) -> Any:
    """Return what two clouds cost, (n, m), as an array or a tensor.

    Metrics that clouds have not are SciPy's, for arrays.
    """
    if metric in METRICS:
        cloud = PointCloud(x, y, METRICS[metric])
        if checks.differentiated(cloud.x) or checks.differentiated(cloud.y):
            return cloud
        cloud = cloud.flat(cloud.batch_shape)
        cloud.validate()
        return form.out(cloud.rows(0, cloud.shape[0])[0])
    if form.tensors:
        known = ", ".join(map(repr, METRICS))
        raise ValueError(f"metric must be one of {known} for tensors, got {metric!r}")
    with needs("scipy"):
        from scipy.spatial.distance import cdist

    return np.asarray(cdist(x, y, metric=metric), form.dtype)


def solve_sample(  # noqa: PLR0913
    X_a: Kind,
    X_b: Kind,
    a: Weights = None,
    b: Weights = None,
    metric: str = "sqeuclidean",
    reg: float | None = None,
    c: Kind | None = None,
    reg_type: RegType = "KL",
    unbalanced: Penalties | None = None,
    unbalanced_type: PenaltyType = "KL",
    lazy: bool = False,
    batch_size: object = None,
    method: Method | Literal["1d", "sliced"] | None = None,
    n_threads: object = 1,
    max_iter: int | None = None,
    plan_init: object = None,
    rank: object = 100,
    scaling: object = 0.95,
    potentials_init: Sequence[Any] | None = None,
    X_init: object = None,
    tol: float | None = None,
    verbose: bool = False,
    grad: Grad = "autodiff",
    random_state: Seed = None,
    debias: bool = False,
    n_projections: int = 50,
    projections: Kind | None = None,
    scaler: None = None,
) -> OTResult[Kind]:
    """POT's `ot.solve_sample`: the plan between two clouds of points, its values, its potentials.

    Args:
        X_a: Source points, (n, d).
        X_b: Target points, (m, d).
        a: Source weights, (n,); None means 1/n each.
        b: Target weights, (m,); None means 1/m each.
        metric: one of `samples.METRICS`; for arrays, and not lazily, any of SciPy's.
        reg: Regularisation in units of the cost; None or 0 for exact transport.
        c: As `solve` takes it.
        reg_type: As `solve` takes it.
        unbalanced: As `solve` takes it.
        unbalanced_type: As `solve` takes it.
        lazy: Whether to store neither costs nor plan: `lazy_plan` has its rows.
        batch_size: Taken, and not needed.
        method: One of the names that `solve` takes; "1d", coordinate by coordinate, or "sliced";
            other problems and approximations are refused.
        n_threads: Taken, and not needed.
        max_iter: As `solve` takes it.
        plan_init: Taken, and not needed.
        rank: Taken, and not needed.
        scaling: Taken, and not needed.
        potentials_init: As `solve` takes it.
        X_init: Taken, and not needed.
        tol: As `solve` takes it.
        verbose: Whether to show a progress bar.
        grad: As `solve` takes it.
        random_state: Seed of the lines of "sliced".
        debias: Whether to take off half of what each cloud costs itself.
        n_projections: How many lines "sliced" takes.
        projections: Where they lead instead, (d, k).
        scaler: None.

    Returns:
        An `OTResult`, with our `Transport` as `transport`.

    Raises:
        ValueError: If an argument breaks a rule, or asks for what only POT has.

    Source: R. Flamary et al., POT: Python optimal transport, JMLR 2021.
    """
    _ours(method, debias, scaler)
    if isinstance(method, str) and method.lower() in ("1d", "sliced"):
        drawn = {"n_projections": n_projections, "projections": projections, "seed": random_state}
        return _on_lines(method.lower(), X_a, X_b, a, b, metric, drawn)
    how: dict[str, Any] = {
        **{"reg": reg, "c": c, "reg_type": reg_type, "unbalanced": unbalanced},
        **{"unbalanced_type": unbalanced_type, "method": method, "max_iter": max_iter},
        **{"potentials_init": potentials_init, "tol": tol, "verbose": verbose, "grad": grad},
    }
    form, x, (y, a, b) = points(X_a, X_b, a, b)
    one = _lazily if lazy else _stored
    if not debias:
        return one(form, x, y, a, b, metric, how)
    found = [one(form, *pair, metric, how) for pair in ((x, y, a, b), (x, x, a, a), (y, y, b, b))]
    return _debiased(form, found)


def _ours(method: Any, debias: Any, scaler: Any) -> None:
    """Refuse what only POT has."""
    if isinstance(method, str) and method.lower() in _THEIRS:
        raise ValueError(
            f"method must be one of {get_args(Method)}, got {method!r}: it is in POT itself"
        )
    if debias == "split":
        raise ValueError("debias must be True or False, got 'split': it is in POT itself")
    if scaler is not None:
        raise ValueError("scaler must be None: scale the points before the call")


def _on_lines(  # noqa: PLR0913
    method: str, x: Any, y: Any, a: Any, b: Any, metric: Any, drawn: dict[str, Any]
) -> OTResult[Any]:
    """Return a result of points on a line, or along lines: its value alone."""
    # imported here: sliced imports points from this file
    from .lp import wasserstein_1d
    from .sliced import sliced_wasserstein_distance

    powers = {"sqeuclidean": 2, "euclidean": 1, "cityblock": 1}
    p = powers[checks.one_of("metric", metric, tuple(powers))]
    form, _, _ = taken(x, y, a, b)
    log = None
    if method == "1d":
        value = wasserstein_1d(x, y, a, b, p=p)
    else:
        value, log = sliced_wasserstein_distance(x, y, a, b, p=p, **drawn, log=True)
    return OTResult(form, {"value": lambda: value, "value_linear": lambda: value}, log=log)


def _stored(  # noqa: PLR0913
    form: Form, x: Any, y: Any, a: Any, b: Any, metric: Any, how: dict[str, Any]
) -> OTResult[Any]:
    with their({"x": "X_a", "y": "X_b"}):
        M = costs(form, x, y, metric)
    return solve(M, a, b, **how)


def _lazily(  # noqa: PLR0913
    form: Form, x: Any, y: Any, a: Any, b: Any, metric: Any, how: dict[str, Any]
) -> OTResult[Any]:
    """Return a result of costs that are computed where they are read."""
    checks.one_of("metric", metric, tuple(METRICS))
    reg, cloud = how["reg"], PointCloud(x, y, METRICS[metric])
    if how["unbalanced"] is not None or how["c"] is not None:
        raise ValueError("unbalanced and c must be None with lazy=True: POT has neither")
    if reg is None or (not isinstance(reg, Tensor) and reg == 0):
        r = solve_exact(cloud, a, b)
        parts = {"value": lambda: r.value, "value_linear": lambda: r.value_linear}
        more = {"plan": lambda: r.plan, "potentials": lambda: (r.f, r.g)}
        return OTResult(form, parts | more, r)
    most = 1000 if how["max_iter"] is None else how["max_iter"]
    limits = How(1e-9 if how["tol"] is None else how["tol"], most, how["verbose"])
    r = answered(cloud, a, b, reg, limits, {"x": "X_a", "y": "X_b"})
    found = entropic(form, r, (a, b, reg), reg_kind(how["reg_type"]), how["grad"] == "envelope")
    return found.lazily(LazyPlan(form, r))


def _debiased(form: Form, found: list[OTResult[Any]]) -> OTResult[Any]:
    between, *within = found

    def taken_off(name: str) -> Any:
        half = sum(getattr(one, name) for one in within) / 2
        return torch.as_tensor(getattr(between, name) - half)

    parts = {name: lambda name=name: taken_off(name) for name in ("value", "value_linear")}
    kept = ("plan", "potentials", "lazy_plan")
    parts |= {name: lambda name=name: getattr(between, name) for name in kept}
    names = ("res_ab", "res_aa", "res_bb")
    return OTResult(form, parts, between.transport, log=dict(zip(names, found, strict=True)))
