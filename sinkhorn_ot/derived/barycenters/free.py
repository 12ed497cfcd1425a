"""free_barycenter(): points that move to where plans to several clouds send them on average."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sinkhorn_ot.exact import solve_exact, unproved_plan
from sinkhorn_ot.problem import ArrayLike, PointCloud, checks, make_plain, shown
from sinkhorn_ot.results import (
    ON_FAIL,
    ConvergenceError,
    OnFail,
    Result,
    Status,
    Transport,
    told,
    uncompiled,
    worst,
)
from sinkhorn_ot.solve import solve

from .clouds import Clouds, as_clouds, first_points, shares


# location steps allowed
_STEPS = 100
# pairs up to which exact plans are asked for without their proofs
_PLAIN = 1 << 24


@shown
@dataclass(frozen=True, eq=False)
class FreeBarycenter(Result):
    """A cloud that is near to several, with the transports to each.

    Attributes:
        points: Where its points are, (n, d).
        weights: What they weigh, (n,).
        values: What the transport to each cloud costs, the entropy included, (k,).
        value: Their weighted mean, ().
        transports: The transport from it to each cloud, one for each or, in one batch, for all.
        moved: How far the last step would move the points, relative to the size of the clouds.
        n_iter: Location steps made.
        status: How it ended: the worst of the points and of the transports.
    """

    points: Tensor
    weights: Tensor
    values: Tensor
    value: Tensor
    transports: list[Transport]
    moved: float
    n_iter: int
    status: Status

    _tells = ("points", "weights", "values", "value", "moved", "n_iter", "converged", "status")
    _instead = ": plot one of its transports, which are in r.transports"

    def _told_in(self, dtype: torch.dtype) -> "FreeBarycenter":
        told = {k: getattr(self, k).to(dtype) for k in ("points", "weights", "values", "value")}
        return replace(self, **told, transports=[r.to(dtype) for r in self.transports])

    @property
    def converged(self) -> bool:
        """Whether points stay, and all transports are solved to tolerance."""
        return self.status in (Status.OPTIMAL, Status.CONVERGED)

    @property
    def message(self) -> str:
        """One sentence on how it ended."""
        ended = worst([r.status for r in self.transports])
        last = next(r for r in self.transports if r.status is ended)
        left = f"The last of {self.n_iter} steps moved the points by {self.moved:.3g}."
        if last.status not in (Status.OPTIMAL, Status.CONVERGED):
            return f"{left} {last.message}"
        return left if self.converged else f"{left} Raise max_iter or tol."

    def check(self) -> "FreeBarycenter":
        """Return self, or raise `ConvergenceError` if it is not at rest."""
        if not self.converged:
            raise ConvergenceError(self.message, self)
        return self


@uncompiled
def free_barycenter(  # noqa: PLR0913
    clouds: ArrayLike | Sequence[ArrayLike],
    a: ArrayLike | Sequence[ArrayLike] | None = None,
    reg: float | None = None,
    *,
    weights: ArrayLike | None = None,
    n: int | None = None,
    b: ArrayLike | None = None,
    init: ArrayLike | None = None,
    tol: float = 1e-7,
    max_iter: int = _STEPS,
    on_fail: OnFail = "warn",
) -> FreeBarycenter:
    """Find a cloud of n points that is near to several clouds, by moving its points.

    Looks for min over x of sum_k w_k OT(x, y_k), where points cost |x - y|^2: each step moves every
    point to the weighted mean of where the plans send it, which never makes the sum larger. It ends
    at rest, which is a minimum nearby and need not be the least.

    Source: M. Cuturi, A. Doucet, Fast computation of Wasserstein barycenters, ICML 2014, algorithm
    2 with weights that stay.

    Args:
        clouds: Points of all clouds, (k, m, d), or a list of k clouds (m_k, d).
        a: Weights of their points, (k, m), or a list of k weights (m_k,), of one mass; None means
            that those of a cloud are equal and sum to one.
        reg: Regularisation of the plans in units of |x - y|^2, above zero; None means exact plans.
        weights: Weights of the clouds, (k,), which are divided by their sum; None means 1/k each.
        n: Number of points; None means those of `init`, of `b`, or of the largest cloud.
        b: Weights of the points, (n,), of the mass of the clouds; None means equal ones.
        init: Where points begin, (n, d); None means at points of the heaviest cloud, moved to the
            middle of all. Whoever doubts the end begins elsewhere and compares the values.
        tol: How little a step may move the points, as a share of how far points of the clouds are
            from their mean, both as roots of mean squares.
        max_iter: Steps allowed.
        on_fail: What to do where they do not come to rest: "warn", "raise" `ConvergenceError`,
            "ignore".

    Returns:
        A `FreeBarycenter`.

    Raises:
        ValueError: If an argument breaks a rule, or requires grad.
        ConvergenceError: With on_fail="raise".
    """
    checks.one_of("on_fail", on_fail, ON_FAIL)
    tol, max_iter = checks.positive("tol", tol), checks.count("max_iter", max_iter)
    given = as_clouds(clouds, a, together=reg is not None)
    w = shares(weights, given)
    x, b = first_points(given, w, n, b, init)
    found: list[Transport] = []
    moved, quick, step = math.inf, reg is None, 0
    while True:
        step += 1
        # plans on the way need no proof
        to = _sent_quickly(given, w, x, b) if quick and step < max_iter else None
        if quick := to is not None:
            moved = float(given.share(to - x, b))
            x, quick = to, moved > tol
            continue
        found = _transports(given, x, b, reg, found)
        to = _sent(found, given, w, x)
        moved = float(given.share(torch.where(b[:, None] > 0, to - x, 0.0), b))
        if moved <= tol or not math.isfinite(moved) or step == max_iter:
            break
        x = torch.where(b[:, None] > 0, to, x)
    values = torch.cat([r.value.reshape(-1) for r in found])
    value = (w * values).sum()
    ended = _ended(found, moved, tol)
    result = FreeBarycenter(x, b, values, value, found, moved, step, ended)
    told(result, result.converged, on_fail)
    return result


def _sent_quickly(given: Clouds, w: Tensor, x: Tensor, b: Tensor) -> Tensor | None:
    """Return where exact plans send points on average, (n, d); None where one asks for more."""
    to = torch.zeros_like(x)
    for y, a, share in zip(given.points, given.weights, w, strict=True):
        p = make_plain(_costs(x, y), b, a, _PLAIN) if y.ndim == 2 else None
        plan = None if p is None else unproved_plan(p)
        if plan is None:
            return None
        P = torch.from_numpy(plan)
        to += share * (P @ y) / P.sum(-1, keepdim=True)
    return to


def _sent(found: Sequence[Transport], given: Clouds, w: Tensor, x: Tensor) -> Tensor:
    """Return where points are sent on average, (n, d)."""
    pairs = zip(found, given.points, strict=True)
    sent = torch.cat([r.barycentric(y).reshape(-1, *x.shape) for r, y in pairs])
    return (w[:, None, None] * sent).sum(0)


def _costs(x: Tensor, y: Tensor) -> Tensor:
    """Return |x - y|^2 of all pairs, of which an exact plan needs all at once, (n, m)."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()


def _transports(
    given: Clouds, x: Tensor, b: Tensor, reg: float | None, before: Sequence[Transport]
) -> list[Transport]:
    """Return the transports from points to all clouds, in one batch or one by one."""
    found = []
    for k, (y, a) in enumerate(zip(given.points, given.weights, strict=True)):
        if reg is None:
            found.append(solve_exact(_costs(x, y), b, a))
        else:
            start = before[k] if before else None
            found.append(solve(PointCloud(x, y), b, a, reg, init=start, on_fail="ignore"))
    return found


def _ended(found: Sequence[Transport], moved: float, tol: float) -> Status:
    points = Status.CONVERGED if moved <= tol else Status.MAX_ITER
    if not math.isfinite(moved):
        points = Status.NOT_FINITE
    return worst([points, *(r.status for r in found)])
