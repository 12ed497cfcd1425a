"""The least cost less a potential, over all pairs, of which few are looked at."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sinkhorn_ot.problem import PointCloud

from .bounds import above, most
from .fewer import tree


# costs that are formed together
_TILE = 1 << 17
# blocks of columns that a first look takes
_FIRST = 3
# what bounds are rounded by, relative to the numbers that they are made of
_ROUNDING = 1e-12


def least_rows(cost: PointCloud, g: Tensor, minus: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return min_j C_ij - g_j, (n,), exactly; inf where g is -inf for all.

    A pair of blocks is left out where its bound says that it holds no row's least.

    Args:
        cost: The cost between two clouds, by squared distances.
        g: What is taken off the costs, (m,); -inf for points that bind nobody.
        minus: How it is taken off.
    """
    rows, columns = tree(cost, 0), tree(cost, 1)
    left, right = (t[0][at.order] for t, at in zip(cost.factors, (rows, columns), strict=True))
    t, out = g[columns.order], g.new_full((len(left),), math.inf)
    if not bool((t > -math.inf).any()):
        return out
    roof = above(columns, t)

    def parts(live: Tensor) -> Iterator[tuple[slice, Tensor]]:
        ends = rows.starts.tolist()
        for k, (start, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            at = columns.members(live[k].nonzero()[:, 0])
            step = max(1, _TILE // len(at))
            for row in range(start, stop, step):
                some = slice(row, min(stop, row + step))
                C = (left[some] @ right[at].T).clamp_(min=0)
                yield some, minus(C, t[at]).amin(-1)

    share = most(rows, above(rows, torch.zeros_like(out)), columns, roof, 1.0)
    top = share.topk(min(_FIRST, share.shape[1])).indices
    for some, least in parts(torch.zeros_like(share, dtype=torch.bool).scatter_(1, top, True)):
        out[some] = least
    largest = left.abs().amax() * right.abs().amax() + out.abs().amax()
    slack = _ROUNDING * float(largest)
    live = (most(rows, above(rows, out), columns, roof, 1.0) > -slack).scatter_(1, top, True)
    for some, least in parts(live):
        out[some] = least
    return out[rows.place]
