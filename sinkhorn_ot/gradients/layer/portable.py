"""The layer on a CPU: batches in parts that a cache holds, small matrices one to a lane.

Of small matrices each entry is a vector over the batch, so that no operation is shorter than a
part. Nothing but the part at hand has its steps kept, and those only on the way back, where they
are taken anew.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import shown

from .definition import How
from .logs import Logs
from .scaled import REACH, Scaled


# entries of a part for each thread
_PART = 1 << 16
# numbers that the steps of a part may take beside it
_KEPT = 1 << 20
# entries of a matrix up to which it goes to a lane
_SMALL = 512


@shown
@dataclass(frozen=True)
class Part:
    """Some matrices of a batch, one to a lane or one after another.

    Attributes:
        of: Which matrices.
        lanes: Whether the batch comes last.
    """

    of: slice
    lanes: bool

    @property
    def axes(self) -> tuple[int, int]:
        """Which axis counts rows and which columns."""
        return (0, 1) if self.lanes else (1, 2)

    def take(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a copy of these matrices, laid out."""
        x = x[self.of]
        x = x.permute(1, 2, 0) if self.lanes else x
        return torch.empty(x.shape, dtype=dtype, device=x.device).copy_(x)

    def weights(self, w: Tensor, axis: int) -> Tensor:
        """Return weights (B or 1, k) that broadcast with what was taken."""
        w = w[self.of] if len(w) > 1 else w
        w = w.unsqueeze(axis)
        return w.permute(1, 2, 0).contiguous() if self.lanes else w

    def put(self, out: Tensor, value: Tensor) -> None:
        """Write matrices back."""
        out[self.of] = value.permute(2, 0, 1) if self.lanes else value

    def add(self, out: Tensor, value: Tensor) -> None:
        """Write derivatives to weights back, or add them up where problems share the weights."""
        value = value.squeeze(self.axes[0] if value.shape[self.axes[0]] == 1 else self.axes[1])
        value = value.t() if self.lanes else value
        if len(out) == 1:
            out += value.sum(0, keepdim=True)
        else:
            out[self.of] = value


def matrices(x: Tensor, a: Tensor, b: Tensor, *how: Any) -> Tensor:
    """Return what `definition.matrices` means."""
    asked = How(*how)
    out = torch.empty_like(x)
    reach = _reach(a, b, asked.n_iter)
    for part in _parts(x, 1):
        steps, L = _taken(x, a, b, asked, part, reach)
        if asked.log:
            row, column = steps.log_of_scales()
            part.put(out, L.add_(row).add_(column))
        else:
            part.put(out, steps.plan())
    return out


def derivatives(
    G: Tensor, x: Tensor, a: Tensor, b: Tensor, *how: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return derivatives to x, a and b of a loss with derivatives G to the matrices.

    `how` ends with whether those to the weights are wanted; if not they are zeros.
    """
    *rest, weights = how
    asked = How(*rest)
    out = torch.empty_like(x)
    to_a, to_b = torch.zeros_like(a), torch.zeros_like(b)
    reach = _reach(a, b, asked.n_iter)
    for part in _parts(x, asked.n_iter):
        steps, _ = _taken(x, a, b, asked, part, reach, keep=True)
        to_L, for_a, for_b = steps.back(part.take(G, steps.dtype), asked.log, weights)
        part.put(out, to_L.mul_(asked.scale))
        if weights:
            part.add(to_a, for_a)
            part.add(to_b, for_b)
    return out, to_a, to_b


def _parts(x: Tensor, kept: int) -> Iterator[Part]:
    """Yield parts of a batch, of which so many steps are kept."""
    B, n, m = x.shape
    many = B
    if x.device.type == "cpu":
        many = min(_PART // (n * m), _KEPT // (kept * (n + m))) * torch.get_num_threads()
    lanes = n * m <= _SMALL and min(B, many) > max(n, m)
    for at in range(0, B, max(1, many)):
        yield Part(slice(at, at + max(1, many)), lanes)


def _reach(a: Tensor, b: Tensor, n_iter: int) -> float:
    """Return how much of exponents' reach weights may take, inf where nobody may look."""
    if a.device.type != "cpu":
        return math.inf
    ends = []
    for w in (a, b):
        size = torch.where(w > 0, w, 1.0).log_().abs_()
        ends.append(float(size.amax()))
    # scales drift where the sums of rows and columns differ
    drift = (a.sum(1) / b.sum(1)).log_().abs_().amax()
    return sum(ends) + n_iter * float(drift)


def _taken(
    x: Tensor, a: Tensor, b: Tensor, asked: How, part: Part, reach: float, keep: bool = False
) -> tuple[Scaled | Logs, Tensor]:
    """Return the steps of a part, taken, and its exponents, which `Scaled` leaves to others."""
    (i, j), on_cpu = part.axes, reach < math.inf
    # exponents are rounded relative to their size, which exponentials would show
    L = part.take(x, torch.float64 if on_cpu else a.dtype).mul_(asked.scale)
    top = L.amax(j, keepdim=True)
    # the first step of the rows forgets what is taken off
    L -= top.masked_fill_(top == -math.inf, 0.0)
    dtype, empty = a.dtype, True
    if on_cpu:
        low = float(L.amin())
        empty = low == -math.inf or not bool((a > 0).all()) or not bool((b > 0).all())
        if low == -math.inf:
            low = float(L.masked_fill(L.isneginf(), 0.0).amin())
        reach -= low
        # beyond the reach of float32 everything is float64
        dtype = dtype if reach <= REACH[dtype] else L.dtype
    rows, columns = (part.weights(w, axis).to(dtype) for w, axis in ((a, 2), (b, 1)))
    steps: Scaled | Logs
    if reach <= REACH[dtype]:
        E = L.exp().to(dtype)
        steps = Scaled(E, _unless_ones(rows), _unless_ones(columns), (i, j), empty)
    else:
        steps = Logs(L, rows, columns, (i, j))
    steps.run(asked.n_iter, keep)
    return steps, L


def _unless_ones(w: Tensor) -> Tensor | None:
    return None if bool((w == 1).all()) else w
