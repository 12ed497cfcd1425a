"""Few pairs of many: the simplex on them, and its potentials to the last digits."""

from typing import Any, NamedTuple

import numpy as np

from sinkhorn_ot.exact.engines import along_forest, compiled
from sinkhorn_ot.problem import needs, shown

from .entries import Array, Places


@shown
class Pairs(NamedTuple):
    """Pairs that a plan may use, row by row: rows, columns, and what they cost, (K,) each."""

    i: Places
    j: Places
    cost: Array

    def __len__(self) -> int:
        return len(self.cost)

    def joined(self, other: "Pairs", m: int) -> "Pairs":
        """Return these and others, each once; how many columns there are tells them apart."""
        i, j = np.concatenate((self.i, other.i)), np.concatenate((self.j, other.j))
        cost = np.concatenate((self.cost, other.cost))
        key, first = np.unique(i * m + j, return_index=True)
        return Pairs(*np.divmod(key, m), cost[first])

    def beyond(self, other: "Pairs", m: int) -> "Pairs":
        """Return those that are not among others."""
        return self.kept(~np.isin(self.i * m + self.j, other.i * m + other.j))

    def places(self, i: Places, j: Places, m: int) -> Places:
        """Return where some of them stand."""
        places: Places = np.searchsorted(self.i * m + self.j, i * m + j)
        return places

    def beside(self, f: Array, g: Array) -> Array:
        """Return what they cost more than potentials say; inf where one is -inf."""
        return self.cost - f[self.i] - g[self.j]

    def kept(self, some: Any) -> "Pairs":
        """Return some of them, in the same order."""
        return Pairs(self.i[some], self.j[some], self.cost[some])


@shown
class Flow(NamedTuple):
    """What the simplex returns: the pairs that move mass and how much, potentials, its end."""

    i: Places
    j: Places
    mass: Array
    f: Array
    g: Array
    finished: bool


def stairs(a: Array, b: Array) -> tuple[Places, Places, Array]:
    """Return the plan that fills places in order: rows, columns and masses, n + m - 1 at most.

    Args:
        a: Source weights, (n,).
        b: Target weights, (m,), of the same sum but for rounding.
    """
    left, right = np.cumsum(a), np.cumsum(b)
    last = min(left[-1], right[-1])
    ends = np.union1d(np.minimum(left, last), np.minimum(right, last))
    ends = ends[ends > 0]
    i, j = (np.minimum(np.searchsorted(t, ends), len(t) - 1) for t in (left, right))
    return i, j, np.diff(ends, prepend=0.0)


def simplex(  # noqa: PLR0913
    a: Array, b: Array, pairs: Pairs, cost: Array, limit: int, start: tuple[Array, ...]
) -> Flow:
    """Find the best plan that uses these pairs only, by POT's network simplex.

    Args:
        a: Source weights of mass one, (n,); it leaves out who has none.
        b: Target weights of the same mass, (m,).
        pairs: The pairs.
        cost: What they cost here, about one at most.
        limit: Pivots at most.
        start: Potentials to begin with, (n,) and (m,), or none.
    """
    ends = pairs.i.astype(np.uint64), pairs.j.astype(np.uint64)
    i, j, mass, _, f, g, code = compiled().emd_c_sparse(a, b, *ends, cost, limit, *start)
    level = float(f.mean())
    return Flow(i.astype(np.intp), j.astype(np.intp), mass, f - level, g + level, code == 1)


def sharpened(pairs: Pairs, used: Any, f: Array, g: Array, lost: float) -> tuple[Array, Array]:
    """Return potentials that sum to the costs along a forest, to which plans and ties belong.

    The simplex carries its potentials through artificial arcs of a price far above the costs, which
    takes their last digits. Its own tree is known by the plan where that is one; else by pairs that
    cost what the potentials say.

    Args:
        pairs: The pairs.
        used: Whether a pair moves mass, (K,), bool.
        f: Source potentials, (n,).
        g: Target potentials, (m,).
        lost: What they may have lost.
    """
    with needs("scipy"):
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import minimum_spanning_tree

    n = len(f)
    rest = np.abs(pairs.cost - f[pairs.i] - g[pairs.j])
    few = pairs.kept(near := (used | (rest <= lost)) & np.isfinite(rest))
    # weights of a tree are above zero: pairs of the plan come first
    weight = np.where(used[near], 0.5, 1.0 + rest[near] / (lost or 1.0))
    size = n + len(g)
    tree = minimum_spanning_tree(
        csr_array((weight, (few.i, n + few.j)), shape=(size, size))
    ).tocoo()
    order = np.lexsort((few.j, few.i))
    key = few.i[order] * len(g) + few.j[order]
    chosen = order[np.searchsorted(key, tree.row.astype(np.intp) * len(g) + tree.col - n)]
    ends = few.kept(chosen)
    found = along_forest(ends.i, n + ends.j, ends.cost, np.concatenate([f, g]))
    return found[:n], found[n:]
