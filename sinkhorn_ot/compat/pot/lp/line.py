"""POT's calls for points on a line: `emd_1d`, `emd2_1d` and `wasserstein_1d`."""

from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.compat.pot.answers import their
from sinkhorn_ot.compat.pot.arrays import Costs, Form, Kind, Log, Numbers, Weights, taken
from sinkhorn_ot.derived import LineTransport, solve_1d
from sinkhorn_ot.problem import checks, needs, shown

from .simplex import evened


# what a metric's distance is raised to; that of the last is told
Metric = Literal["sqeuclidean", "cityblock", "euclidean", "minkowski"]
_POWERS: dict[Metric, float | None] = {
    "sqeuclidean": 2.0,
    "cityblock": 1.0,
    "euclidean": 1.0,
    "minkowski": None,
}
WORDS = {"x": "x_a", "y": "x_b"}


@shown
class PlanTuple(NamedTuple):
    """A plan as its entries, their rows and their columns."""

    data: Any
    rows: Any
    cols: Any


@overload
def emd_1d(
    x_a: Kind, x_b: Kind, a: Weights = ..., b: Weights = ..., metric: Metric = ...,
    p: float = ..., dense: bool = ..., log: Literal[False] = ..., check_marginals: bool = ...,
) -> Kind: ...  # fmt: skip
@overload
def emd_1d(
    x_a: Kind, x_b: Kind, a: Weights = ..., b: Weights = ..., metric: Metric = ...,
    p: float = ..., dense: bool = ..., *, log: Literal[True], check_marginals: bool = ...,
) -> tuple[Kind, Log]: ...  # fmt: skip
def emd_1d(  # noqa: PLR0913
    x_a: Numbers,
    x_b: Numbers,
    a: Weights = None,
    b: Weights = None,
    metric: Metric = "sqeuclidean",
    p: float = 1.0,
    dense: bool = True,
    log: bool = False,
    check_marginals: bool = True,
) -> Numbers | tuple[Numbers, Log]:
    """POT's `ot.emd_1d`: an exact plan between points on a line.

    Args:
        x_a: Source points, (n,) or (n, 1).
        x_b: Target points, (m,) or (m, 1).
        a: Source weights, (n,); None or [] means 1/n each.
        b: Target weights, (m,), scaled to the mass of a; None or [] means 1/m each.
        metric: "sqeuclidean", "cityblock", "euclidean", or "minkowski", |x - y| ** p.
        p: The power of "minkowski", at least 1.
        dense: Whether to return a matrix, and not a sparse one of SciPy's or a sparse tensor.
        log: Whether to return a dictionary too.
        check_marginals: Whether masses must agree, to 1.5e-6.

    Returns:
        The plan, (n, m); with log=True beside it a dictionary of cost, and the numbers of the
        points that each entry joins, perms_x_a and perms_x_b.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: M. Perrot-Dockes, POT's solver in one dimension; F. Santambrogio, Optimal transport for
    applied mathematicians, 2015, chapter 2.
    """
    form, r = _found(x_a, x_b, a, b, metric, p, check_marginals)
    entries = r.mass > 0
    i, j, mass = (t[entries] for t in (r.source, r.target, r.mass))
    G = _matrix(form, i, j, mass, r.given.x.shape[1], r.given.y.shape[1])
    if dense:
        G = G.to_dense() if form.tensors else G.toarray()
    if not log:
        return G
    perms = [t if form.tensors else t.numpy() for t in (i, j)]
    return G, {"cost": form.out(r.value), "perms_x_a": perms[0], "perms_x_b": perms[1]}


@overload
def emd2_1d(
    x_a: Numbers, x_b: Numbers, a: Weights = ..., b: Weights = ..., metric: Metric = ...,
    p: float = ..., dense: bool = ..., log: Literal[False] = ...,
) -> Costs: ...  # fmt: skip
@overload
def emd2_1d(
    x_a: Numbers, x_b: Numbers, a: Weights = ..., b: Weights = ..., metric: Metric = ...,
    p: float = ..., dense: bool = ..., *, log: Literal[True],
) -> tuple[Costs, Log]: ...  # fmt: skip
def emd2_1d(  # noqa: PLR0913
    x_a: Numbers,
    x_b: Numbers,
    a: Weights = None,
    b: Weights = None,
    metric: Metric = "sqeuclidean",
    p: float = 1.0,
    dense: bool = True,
    log: bool = False,
) -> Costs | tuple[Costs, Log]:
    """POT's `ot.emd2_1d`: what an exact plan between points on a line costs.

    Args:
        x_a: Source points, (n,) or (n, 1).
        x_b: Target points, (m,) or (m, 1).
        a: Source weights, (n,); None or [] means 1/n each.
        b: Target weights, (m,), scaled to the mass of a; None or [] means 1/m each.
        metric: As `emd_1d` takes it.
        p: The power of "minkowski", at least 1.
        dense: Whether the dictionary's plan is a matrix.
        log: Whether to return a dictionary too, with the plan as G.

    Returns:
        The cost, (), with derivatives by tensors that require grad.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: as for `emd_1d`.
    """
    form, r = _found(x_a, x_b, a, b, metric, p, True)
    cost = form.out(r.value)
    if not log:
        return cost
    moved: Any = emd_1d
    return cost, {"G": moved(x_a, x_b, a, b, metric, p, dense)}


@overload
def wasserstein_1d(
    u_values: Numbers, v_values: Numbers, u_weights: Weights = ..., v_weights: Weights = ...,
    p: float = ..., require_sort: bool = ..., return_plans: Literal[False] = ...,
) -> Costs: ...  # fmt: skip
@overload
def wasserstein_1d(
    u_values: Numbers, v_values: Numbers, u_weights: Weights = ..., v_weights: Weights = ...,
    p: float = ..., require_sort: bool = ..., *, return_plans: Literal[True, "coo_tuple"],
) -> tuple[Costs, list[Any]]: ...  # fmt: skip
def wasserstein_1d(  # noqa: PLR0913
    u_values: Numbers,
    v_values: Numbers,
    u_weights: Weights = None,
    v_weights: Weights = None,
    p: float = 1,
    require_sort: bool = True,
    return_plans: bool | Literal["coo_tuple"] = False,
) -> Costs | tuple[Costs, list[Any]]:
    """POT's `ot.wasserstein_1d`: the p-th power of the distance along one line or several.

    Args:
        u_values: Source points, (n,), or (n, k) along k lines.
        v_values: Target points, (m,) or (m, k).
        u_weights: Source weights, (n,) or (n, k); None means 1/n each.
        v_weights: Target weights, (m,) or (m, k); None means 1/m each.
        p: The power, at least 1.
        require_sort: Taken, and not needed: points are sorted.
        return_plans: True for a list of sparse plans too, "coo_tuple" for one of their entries.

    Returns:
        The cost, () or (k,), with derivatives by tensors that require grad; with return_plans a
        list of plans beside it.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: as for `emd_1d`.
    """
    checks.one_of("return_plans", str(return_plans), ("True", "False", "coo_tuple"))
    form, u, (v, a, b) = taken(u_values, v_values, u_weights, v_weights)
    u, v = (t.T if t.ndim > 1 else t for t in (u, v))
    a, b = (t.T if t is not None and t.ndim > 1 else t for t in (a, b))
    with their({"x": "u_values", "y": "v_values", "a": "u_weights", "b": "v_weights"}):
        r = solve_1d(u, v, a, b, p=p)
    cost = form.out(r.value)
    if return_plans is False:
        return cost
    lines = [t.reshape(-1, t.shape[-1]) for t in (r.source, r.target, r.mass)]
    plans = []
    for i, j, mass in zip(*lines, strict=True):
        if return_plans == "coo_tuple":
            ends = (t if form.tensors else t.numpy() for t in (i, j))
            plans.append(PlanTuple(form.out(mass), *ends))
        else:
            plans.append(_matrix(form, i, j, mass, r.given.x.shape[1], r.given.y.shape[1]))
    return cost, plans


def _found(  # noqa: PLR0913
    x_a: Any, x_b: Any, a: Any, b: Any, metric: Any, p: float, check: bool
) -> tuple[Form, LineTransport]:
    checks.one_of("metric", metric, tuple(_POWERS))
    form, x, (y, a, b) = taken(x_a, x_b, a, b)
    for name, t in (("x_a", x), ("x_b", y)):
        if t.ndim != 1 and (t.ndim != 2 or t.shape[1] != 1):
            raise ValueError(f"{name} must be points on a line, (n,) or (n, 1), got {t.shape}")
    power = _POWERS[metric]
    with their(WORDS):
        pair = x.reshape(-1), y.reshape(-1)
        return form, solve_1d(*pair, a, evened(a, b, check), p=p if power is None else power)


def _matrix(form: Form, i: Tensor, j: Tensor, mass: Tensor, n: int, m: int) -> Any:
    """Return a sparse plan."""
    if form.tensors:
        index = torch.stack([i, j])
        return torch.sparse_coo_tensor(index, mass.to(form.dtype), (n, m), check_invariants=False)
    # imported here: few ask
    with needs("scipy"):
        from scipy.sparse import coo_matrix

    entries = np.asarray(mass.numpy(), form.dtype)
    return coo_matrix((entries, (i.numpy(), j.numpy())), shape=(n, m))
