"""Linear programming engines for exact transport: one small function each, one table for all."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sinkhorn_ot.problem import needs, shown

from .batched import Flows, assignments, simplexes


Array = npt.NDArray[np.float64]

# the least that HiGHS takes
_TOL = 1e-10
# the largest weight that it sees: fourteen digits above that
_LARGEST = 1e4


@shown
class Flow(NamedTuple):
    """What an engine returns: a plan, dual potentials (feasible or nearly), and how it ended."""

    P: Array
    f: Array
    g: Array
    n_iter: int
    finished: bool


# an engine takes costs (n, m), 0 or more and about 1 at most where they matter, inf where
# forbidden; positive weights (n,) and (m,) of mass one; and a limit on its iterations
Engine = Callable[[Array, Array, Array, int | None], Flow]


def network_simplex(C: Array, a: Array, b: Array, max_iter: int | None) -> Flow:
    """Solve by POT's network simplex; a forbidden pair gets a price that no optimal plan pays."""
    many = simplexes(C[None], a[None], b[None], max_iter)
    return Flow(many.P[0], many.f[0], many.g[0], 0, bool(many.finished[0]))


def highs(C: Array, a: Array, b: Array, max_iter: int | None) -> Flow:
    """Solve by HiGHS; a forbidden pair is no variable."""
    with needs("scipy"):
        from scipy.optimize import linprog
        from scipy.sparse import coo_array

    n, m = C.shape
    i, j = np.nonzero(np.isfinite(C))
    pair = np.arange(len(i))
    entries = (np.ones(2 * len(i)), (np.r_[i, n + j], np.r_[pair, pair]))
    # one equation follows from the others; tolerances are absolute, so weights are made large
    A = coo_array(entries, shape=(n + m, len(i))).tocsr()[:-1]
    size = _LARGEST / max(a.max(), b.max())
    options: dict[str, Any] = {f"{side}_feasibility_tolerance": _TOL for side in ("primal", "dual")}
    if max_iter is not None:
        options["maxiter"] = max_iter
    weights = np.r_[a, b][:-1] * size
    answer = linprog(C[i, j], A_eq=A, b_eq=weights, method="highs-ds", options=options)
    P, duals = np.zeros((n, m)), np.zeros(n + m)
    if answer.x is not None:
        P[i, j] = np.maximum(answer.x, 0) / size
        duals[:-1] = answer.eqlin.marginals
    return Flow(P, duals[:n], duals[n:], int(answer.nit), answer.status == 0)


def assignment(C: Array, a: Array, b: Array, max_iter: int | None) -> Flow:
    """Match n points to n others by SciPy's shortest augmenting paths; needs equal weights."""
    many = assignments(C[None], a[None], b[None], max_iter)
    return Flow(many.P[0], many.f[0], many.g[0], 0, True)


EngineName = Literal["network simplex", "highs", "assignment"]
ENGINES: dict[str, Engine] = {
    "network simplex": network_simplex,
    "highs": highs,
    "assignment": assignment,
}

# engines that solve a batch, points without weight included, faster than one problem at a time
BATCHED: dict[Engine, Callable[[Array, Array, Array, int | None], Flows]] = {
    network_simplex: simplexes,
    assignment: assignments,
}
