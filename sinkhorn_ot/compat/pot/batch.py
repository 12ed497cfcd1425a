"""POT's `ot.batch.solve_batch`: a batch of problems, solved together."""

from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

from torch import Tensor

from sinkhorn_ot.exact import solve_exact
from sinkhorn_ot.problem import PointCloud, checks

from .answers import How, absent, answered, their
from .arrays import Form, Kind, Weights, float64, taken
from .result import OTResult
from .samples import METRICS, MetricName, points
from .solvers import WORDS, Grad, RegType, entropic, exactly, reg_kind


Method = Literal["auto", "proximal", "log_sinkhorn", "sinkhorn"]


def solve_batch(  # noqa: PLR0913
    M: Kind,
    reg: float | None = None,
    a: Weights = None,
    b: Weights = None,
    max_iter: int = 1000,
    tol: float = 1e-05,
    method: Method = "auto",
    inner_iter: object = 1,
    inner_reg: object = 0.001,
    reg_type: RegType = "entropy",
    grad: Grad = "envelope",
) -> OTResult[Kind]:
    """POT's `ot.batch.solve_batch`: plans and values of a batch of problems.

    Args:
        M: Costs, (B, n, m).
        reg: Regularisation in units of the cost; None or 0 for exact transport.
        a: Source weights, (B, n); None means 1/n each.
        b: Target weights, (B, m); None means 1/m each.
        max_iter: Sweeps allowed.
        tol: Relative L1 error of the marginals to reach.
        method: One of POT's names; all are answered by one solver.
        inner_iter: Taken, and not needed.
        inner_reg: Taken, and not needed.
        reg_type: "entropy" or "KL", which count values in two ways.
        grad: As `solve` takes it.

    Returns:
        An `OTResult` whose numbers have the dimension of the batch first.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: R. Flamary et al., POT: Python optimal transport, JMLR 2021.
    """
    form, M, (a, b) = taken(M, a, b)
    if M.ndim != 3:
        raise ValueError(f"M must have shape (B, n, m), got {tuple(M.shape)}")
    return _solved(form, M, reg, a, b, How(tol, max_iter), method, reg_type, grad)


def solve_sample_batch(  # noqa: PLR0913
    X_a: Kind,
    X_b: Kind,
    reg: float | None = None,
    a: Weights = None,
    b: Weights = None,
    metric: MetricName = "sqeuclidean",
    p: object = 2,
    max_iter: int = 1000,
    tol: float = 1e-05,
    method: Method = "auto",
    inner_iter: object = 1,
    inner_reg: object = 0.001,
    reg_type: RegType = "entropy",
    grad: Grad = "envelope",
) -> OTResult[Kind]:
    """POT's `ot.batch.solve_sample_batch`: the same of a batch of clouds.

    Args:
        X_a: Source points, (B, n, d).
        X_b: Target points, (B, m, d).
        reg: Regularisation in units of the cost; None or 0 for exact transport.
        a: Source weights, (B, n); None means 1/n each.
        b: Target weights, (B, m); None means 1/m each.
        metric: "sqeuclidean" or "euclidean".
        p: Taken, and not needed: it is of metrics that are not served.
        max_iter: Sweeps allowed.
        tol: Relative L1 error of the marginals to reach.
        method: One of POT's names; all are answered by one solver.
        inner_iter: Taken, and not needed.
        inner_reg: Taken, and not needed.
        reg_type: "entropy" or "KL", which count values in two ways.
        grad: As `solve` takes it.

    Returns:
        An `OTResult` whose numbers have the dimension of the batch first.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: R. Flamary et al., POT: Python optimal transport, JMLR 2021.
    """
    checks.one_of("metric", metric, tuple(METRICS))
    form, X_a, (X_b, a, b) = points(X_a, X_b, a, b)
    cloud = PointCloud(X_a, X_b, METRICS[metric])
    return _solved(form, cloud, reg, a, b, How(tol, max_iter), method, reg_type, grad)


def _solved(  # noqa: PLR0913
    form: Form,
    cost: Any,
    reg: Any,
    a: Any,
    b: Any,
    how: How,
    method: str,
    reg_type: str,
    grad: str,
) -> OTResult[Any]:
    checks.one_of("method", method, get_args(Method))
    checks.one_of("grad", grad, get_args(Grad))
    kind = reg_kind(reg_type)
    none = reg is None or (not isinstance(reg, Tensor) and reg == 0)
    if none and method in ("log_sinkhorn", "sinkhorn"):
        raise ValueError(f"reg must be above zero for method {method!r}, got {reg!r}")
    if none:
        with their(WORDS):
            r = solve_exact(cost if isinstance(cost, PointCloud) else float64(cost), a, b)
        return exactly(form, r)
    if grad == "detach" and isinstance(cost, Tensor):
        cost, a, b = (t.detach() if isinstance(t, Tensor) else t for t in (cost, a, b))
    r = answered(cost, a, b, reg, how, WORDS)
    found = entropic(form, r, (a, b, reg), kind, value_only=grad == "envelope")
    found.log = {"n_iter": int(r.n_iter.max())}
    return found


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        raise absent(__name__, name)
