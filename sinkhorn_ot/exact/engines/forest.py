"""Potentials along the forest of pairs that one plan uses: g_j = C_ij - f_i, from each tree's root.

The simplex carries its potentials through artificial arcs of a price far above the costs, which
takes their last digits. A walk gives them back, one node at a time: the trees of one problem are
too deep for arrays, which take a step for each level or many calls for each halving.
"""

import math

import numpy as np
import numpy.typing as npt


Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


def climbed(C: Array, pairs: Index, start: Array) -> Array:
    """Return g with f_i + g_j = C_ij along a forest of pairs, where each tree's first f is given.

    Args:
        C: Costs, (n, m).
        pairs: Flat indices into C, in order, in which every point occurs.
        start: What f is where a tree starts, (n,).
    """
    n, m = C.shape
    source, target = np.divmod(pairs, m)
    order = np.argsort(target, kind="stable")
    in_row = np.searchsorted(source, np.arange(n + 1)).tolist()
    in_column = np.searchsorted(target[order], np.arange(m + 1)).tolist()
    rows, columns, costs, others = (t.tolist() for t in (source, target, C.ravel()[pairs], order))
    # nan, which equals nothing, is who was not reached
    f, g = [math.nan] * n, [math.nan] * m
    for root, potential in enumerate(start.tolist()):
        if f[root] == f[root]:
            continue
        f[root] = potential
        reached = [root]
        for row in reached:
            above = f[row]
            for pair in range(in_row[row], in_row[row + 1]):
                column = columns[pair]
                if g[column] == g[column]:
                    continue
                g[column] = price = costs[pair] - above
                for other in others[in_column[column] : in_column[column + 1]]:
                    below = rows[other]
                    if f[below] != f[below]:
                        f[below] = costs[other] - price
                        reached.append(below)
    return np.array(g)
