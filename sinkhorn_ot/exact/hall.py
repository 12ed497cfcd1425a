"""Whether forbidden pairs leave a plan: a maximum flow, and the rows and columns that prove it.

By Hall's theorem there is none if some rows hold more than all the columns that they may use.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from sinkhorn_ot.problem import needs
from sinkhorn_ot.results import Stranded


Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# all mass in whole numbers, of which two sums stay below 2^31
_MASS = 1 << 29


def stranded(allowed: Mask, a: Array, b: Array) -> Stranded | None:
    """Return why no plan exists; None if one does, or lacks less than rounding to whole numbers.

    Args:
        allowed: Which pairs may carry mass, (n, m).
        a: Source weights, (n,).
        b: Target weights, (m,), of the same total.
    """
    # imported here: a problem without forbidden pairs never pays for it
    with needs("scipy"):
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    n, m = allowed.shape
    left, right = _whole(a), _whole(b)
    i, j = np.nonzero(allowed & (left > 0)[:, None] & (right > 0))
    source, sink = n + m, n + m + 1
    tails = np.r_[np.full(n, source), i, n + np.arange(m)]
    heads = np.r_[np.arange(n), n + j, np.full(m, sink)]
    room = np.r_[left, np.full(len(i), 2 * _MASS), right].astype(np.int32)
    graph: Any = csr_array((room, (tails, heads)), shape=(n + m + 2, n + m + 2))
    answer = maximum_flow(graph, source, sink)
    if left.sum() - answer.flow_value <= n + m:
        return None
    # what can still be reached from the source holds too much, and only full columns
    residual = graph - answer.flow
    residual.data = residual.data.clip(0)
    residual.eliminate_zeros()
    reached = breadth_first_order(residual, source, return_predecessors=False)
    rows = np.sort(reached[reached < n])
    # those of less than one in whole numbers are not reached, and take next to nothing
    columns = np.flatnonzero((allowed[rows] & (b > 0)).any(0))
    return Stranded(rows, columns, float(a[rows].sum()), float(b[columns].sum()))


def _whole(weight: Array) -> npt.NDArray[np.int64]:
    """Return weights as whole numbers, rounded down."""
    whole: npt.NDArray[np.int64] = np.floor(weight * (_MASS / weight.sum())).astype(np.int64)
    return whole
