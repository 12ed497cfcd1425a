"""Linear programming engines for exact transport: one small function each, one table for all."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sinkhorn_ot.problem import shown


Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

# pivots allowed per point when the caller sets no limit: some hundred times what was ever needed
_PIVOTS = 10_000
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
    import ot

    n, m = C.shape
    limit = 1_000_000 + _PIVOTS * (n + m) if max_iter is None else max_iter
    with warnings.catch_warnings():
        # how it ended is in the flow
        warnings.simplefilter("ignore")
        P, log = ot.emd(a, b, _priced(C), numItermax=limit, log=True, check_marginals=False)
    f, g = _sharpened(C, P, log["u"], log["v"])
    return Flow(P, f, g, 0, log["result_code"] == 1)


def highs(C: Array, a: Array, b: Array, max_iter: int | None) -> Flow:
    """Solve by HiGHS; a forbidden pair is no variable."""
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
    from scipy.optimize import linear_sum_assignment

    rows, match = linear_sum_assignment(C)
    P = np.zeros_like(C)
    P[rows, match] = a
    g = _shortest_paths(C, match, np.zeros(len(b)))
    return Flow(P, C[rows, match] - g[match], g, 0, True)


def _shortest_paths(C: Array, match: Index, distance: Array) -> Array:
    """Return target potentials, no larger than given, that prove a matching optimal.

    They are distances in its residual graph, where the step from target match[i] to target j
    costs C[i, j] - C[i, match[i]]: Bellman-Ford, only from the targets that came closer.
    """
    n = len(match)
    row_of = np.argsort(match)
    matched = C[row_of, np.arange(n)]
    moved = np.arange(n)
    for _ in range(n):
        row = row_of[moved]
        closer = (C[row] + (distance[moved] - matched[moved])[:, None]).min(0)
        # a cycle that costs nothing must not turn into an endless one by rounding
        moved = np.flatnonzero(closer < distance - 1e-15)
        if len(moved) == 0:
            break
        distance = np.minimum(distance, closer)
    return distance


def _priced(C: Array) -> Array:
    """Return the costs with a price on forbidden pairs above that of any detour."""
    allowed = np.isfinite(C)
    return C if allowed.all() else np.where(allowed, C, sum(C.shape) * max(1.0, C[allowed].max()))


def _sharpened(C: Array, P: Array, f: Array, g: Array) -> tuple[Array, Array]:
    """Return potentials with f_i + g_j = C_ij on the pairs that the plan uses: a forest.

    The simplex carries its potentials through artificial arcs of a price far above the costs, which
    takes their last digits.
    """
    n, m = C.shape
    i, j = np.nonzero((P > 0) & np.isfinite(C))
    if len(i) == n == m:
        g = _shortest_paths(C, j, g)
        return C[i, j] - g[j], g
    potential = np.r_[f, g].tolist()
    partners: list[list[tuple[int, float]]] = [[] for _ in potential]
    for source, target, c in zip(i.tolist(), (n + j).tolist(), C[i, j].tolist(), strict=True):
        partners[source].append((target, c))
        partners[target].append((source, c))
    reached = [False] * (n + m)
    for root in range(n):
        to_do = [] if reached[root] else [root]
        reached[root] = True
        while to_do:
            node = to_do.pop()
            for other, c in partners[node]:
                if not reached[other]:
                    reached[other] = True
                    potential[other] = c - potential[node]
                    to_do.append(other)
    return np.array(potential[:n]), np.array(potential[n:])


ENGINES: dict[str, Engine] = {
    "network simplex": network_simplex,
    "highs": highs,
    "assignment": assignment,
}
