"""Engines for batches: the simplex and the matching of each problem, the potentials of all at once.

Plans of the simplex are forests, and its potentials follow from the costs along them. Those of a
matching are shortest paths in its residual graph.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sinkhorn_ot.exact.proof import used
from sinkhorn_ot.problem import needs, shown

from .candidates import MANY, solved_on_few
from .matcher import matcher
from .pot import compiled


Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

# pivots allowed per point when the caller sets no limit: some hundred times what was ever needed
_PIVOTS = 10_000
# a path must be shorter by this: a cycle that costs nothing must not turn endless by rounding
_SHORTER = 1e-15
# points from which on only the targets that came closer are looked at, and how many together
_MANY = 128
_TILE = 1 << 15


@shown
class Flows(NamedTuple):
    """What an engine returns for a batch: plans, potentials, and whether each was finished."""

    P: Array
    f: Array
    g: Array
    n_iter: Index
    finished: Mask


def simplexes(C: Array, a: Array, b: Array, max_iter: int | None) -> Flows:
    """Solve each problem by POT's network simplex.

    A forbidden pair gets a price that no optimal plan pays.

    Args:
        C: Costs, (B, n, m), as engines take them.
        a: Source weights, (B, n); zeros are left out by the simplex itself.
        b: Target weights, (B, m).
        max_iter: Pivots at most.
    """
    B, n, m = C.shape
    limit = pivots(n, m) if max_iter is None else max_iter
    priced, b = _priced(C), b * (a.sum(1) / b.sum(1))[:, None]
    answers = [simplex_of(priced[k], a[k], b[k], limit, max_iter is None) for k in range(B)]
    P = _stacked([x[0] for x in answers])
    f, g = (np.stack([x[side] for x in answers]) for side in (1, 2))
    f, g = _sharpened(C, P, f, g)
    finished = np.array([x[3] for x in answers])
    return Flows(P, f, g, np.zeros(B, np.intp), finished)


def pivots(n: int, m: int) -> int:
    """Return how many pivots are allowed where the caller sets no limit."""
    return 1_000_000 + _PIVOTS * (n + m)


def simplex_of(
    C: Array, a: Array, b: Array, limit: int, may_leave_out: bool = True
) -> tuple[Array, Array, Array, bool]:
    """Return a plan, potentials, and whether the simplex was finished."""
    if may_leave_out and C.size >= MANY:
        rows, columns = np.flatnonzero(a), np.flatnonzero(b)
        whole = len(rows) + len(columns) == sum(C.shape)
        held = C if whole else C[rows[:, None], columns]
        if found := solved_on_few(held, a[rows], b[columns], limit):
            P, f, g = np.zeros(C.shape), np.zeros(len(a)), np.zeros(len(b))
            P[rows[found.source], columns[found.target]] = found.mass
            f[rows], g[columns] = found.f, found.g
            return P, f, g, True
    P, _, f, g, code = compiled().emd_c(a, b, C, limit, 1)[:5]
    return P, f, g, code == 1


def assignments(C: Array, a: Array, b: Array, max_iter: int | None) -> Flows:
    """Match n points to n others in each problem by SciPy's shortest augmenting paths.

    Args:
        C: Costs, (B, n, n), as engines take them.
        a: Source weights, (B, n), all equal and positive.
        b: Target weights, (B, n), likewise.
        max_iter: Not used: there are no pivots.
    """
    B, n, _ = C.shape
    P = np.stack([matched(C[k], a[k]) for k in range(B)])
    match = P.argmax(2)
    f, g = of_matching(C, match, np.zeros((B, n)))
    return Flows(P, f, g, np.zeros(B, np.intp), np.ones(B, bool))


def matched(C: Array, a: Array) -> Array:
    """Return the plan of a matching, (n, n), whose points have the weights `a`."""
    P = np.zeros(C.shape)
    rows, columns = matcher()(C)
    P[rows, columns] = a
    return P


def _stacked(answers: list[Array]) -> Array:
    return answers[0][None] if len(answers) == 1 else np.stack(answers)


def _priced(C: Array) -> Array:
    """Return the costs with a price on forbidden pairs above that of any detour."""
    allowed = np.isfinite(C)
    if allowed.all():
        return np.ascontiguousarray(C)
    largest = np.where(allowed, C, 1.0).max((1, 2))
    return np.where(allowed, C, (sum(C.shape[1:]) * np.maximum(1.0, largest))[:, None, None])


def _sharpened(C: Array, P: Array, f: Array, g: Array) -> tuple[Array, Array]:
    """Return potentials with f_i + g_j = C_ij on the pairs that the plans use: a forest.

    The simplex carries its potentials through artificial arcs of a price far above the costs, which
    takes their last digits.
    """
    B, n, m = P.shape
    k, i, j = used(P)
    c = C[k, i, j]
    real = np.isfinite(c)
    if not real.all():
        k, i, j, c = k[real], i[real], j[real], c[real]
    paired = np.zeros(B, bool)
    if n == m:
        rows, columns = (np.bincount(k * n + t, minlength=B * n) for t in (i, j))
        paired = ((rows == 1) & (columns == 1)).reshape(B, n).all(1)
    if not paired.all():
        source, target = k * (n + m) + i, k * (n + m) + n + j
        potential = along_forest(source, target, c, np.concatenate([f, g], 1).ravel())
        f, g = np.split(potential.reshape(B, n + m), [n], axis=1)
    if paired.any():
        # exactly one entry in every row
        match = j[paired[k]].reshape(-1, n)
        f, g = f.copy(), g.copy()
        f[paired], g[paired] = of_matching(C if paired.all() else C[paired], match, g[paired])
    return f, g


def along_forest(source: Index, target: Index, c: Array, potential: Array) -> Array:
    """Return potentials that sum to c along edges; the first node of each tree keeps its own."""
    with needs("scipy"):
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import breadth_first_order, connected_components

    N = len(potential)
    ends, starts = np.r_[source, target], np.r_[target, source]
    tree = csr_array((np.ones(len(ends)), (ends, starts)), shape=(N, N))
    count, label = connected_components(tree, directed=False)
    first = np.empty(count, np.intp)
    # the last one written stays
    first[label[::-1]] = np.arange(N - 1, -1, -1)
    # one more node leads to all roots
    ends, starts = np.r_[ends, np.full(count, N)], np.r_[starts, first]
    tree = csr_array((np.ones(len(ends)), (ends, starts)), shape=(N + 1, N + 1))
    parent = breadth_first_order(tree, N)[1][:N].astype(np.intp)
    cost = _cost_to(parent, source, target, c)
    # x(node) = sign * x(above) + add, doubled until every node hangs on its root
    roots = parent == N
    above = np.where(roots, np.arange(N), parent)
    sign, add = np.where(roots, 1.0, -1.0), np.where(roots, 0.0, cost)
    while not np.array_equal(higher := above[above], above):
        sign, add = sign * sign[above], add + sign * add[above]
        above = higher
    climbed: Array = sign * potential[above] + add
    return climbed


def _cost_to(parent: Index, source: Index, target: Index, c: Array) -> Array:
    """Return what the edge from each node to its parent costs; 0 where there is none."""
    cost = np.zeros(len(parent))
    down, up = parent[target] == source, parent[source] == target
    cost[target[down]], cost[source[up]] = c[down], c[up]
    return cost


def of_matching(C: Array, match: Index, start: Array) -> tuple[Array, Array]:
    """Return potentials that prove matchings optimal, g no larger than given.

    They are distances in the residual graph, where the step from target match[i] to target j costs
    C[i, j] - C[i, match[i]]: Bellman and Ford.

    Args:
        C: Costs, (B, n, n).
        match: Target of each source, (B, n).
        start: Target potentials, (B, n).
    """
    own = np.take_along_axis(C, match[:, :, None], 2)[:, :, 0]
    if len(C) > 1 and C.shape[1] < _MANY:
        g = _shortest_together(C, own, match, start)
    else:
        g = np.stack([_shortest_paths(*one) for one in zip(C, own, match, start, strict=True)])
    return own - np.take_along_axis(g, match, 1), g


def _shortest_together(C: Array, own: Array, match: Index, g: Array) -> Array:
    """Return distances of problems in step; those that are done drop out."""
    g, running = g.copy(), np.arange(len(C))
    for _ in range(C.shape[1]):
        f = own[running] - np.take_along_axis(g[running], match[running], 1)
        held = C if len(running) == len(C) else C[running]
        closer = (held - f[:, :, None]).min(1)
        moved = (closer < g[running] - _SHORTER).any(1)
        running, closer = running[moved], closer[moved]
        if len(running) == 0:
            break
        g[running] = np.minimum(g[running], closer)
    return g


def _shortest_paths(C: Array, own: Array, match: Index, distance: Array) -> Array:
    """Return distances of one problem, only from targets that came closer, nearest first."""
    n = len(match)
    distance, step = distance.copy(), max(1, _TILE // n)
    row_of = np.argsort(match)
    moved = np.arange(n)
    for _ in range(n):
        before = distance.copy()
        moved = moved[np.argsort(distance[moved], kind="stable")]
        for start in range(0, len(moved), step):
            few = moved[start : start + step]
            row = row_of[few]
            steps = C[row]
            steps += (distance[few] - own[row])[:, None]
            closer = steps.min(0)
            better = closer < distance - _SHORTER
            distance[better] = closer[better]
        moved = np.flatnonzero(distance < before)
        if len(moved) == 0:
            break
    return distance
