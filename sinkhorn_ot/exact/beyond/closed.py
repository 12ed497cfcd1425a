"""Whether forbidden pairs leave a plan, by the prices of a simplex that had to use some of them.

Beside a price far above all costs the rows that pay it, and whoever shares columns with them, have
potentials far above all others: by Hall's theorem they prove that no plan exists.
"""

import numpy as np
import torch

from sinkhorn_ot.results import Stranded

from .coarser import Part
from .entries import Array, read


def closed(part: Part, f: Array) -> Stranded | None:
    """Return rows that hold more than all their columns take, where potentials tell some.

    Args:
        part: The problem.
        f: Source potentials beside a price of forbidden pairs far above all costs, (n,).
    """
    held = np.flatnonzero(part.a > 0)
    order = held[np.argsort(-f[held], kind="stable")]
    fall = -np.diff(f[order])
    if len(fall) == 0:
        return None
    rows = np.sort(order[: int(fall.argmax()) + 1])
    some = torch.zeros(part.cost.shape[1], dtype=torch.bool, device=part.cost.device)
    for _, C in read(part.cost, rows=torch.from_numpy(rows).to(some.device)):
        some |= C.isfinite().any(0)
    columns = np.flatnonzero(some.cpu().numpy() & (part.b > 0))
    why = Stranded(rows, columns, float(part.a[rows].sum()), float(part.b[columns].sum()))
    return why if why.held > why.taken else None
