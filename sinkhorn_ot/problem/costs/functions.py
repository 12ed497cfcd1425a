"""Metrics that are functions of two clouds: called, and differentiated, block by block."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks
from sinkhorn_ot.problem.rows import at_once

from .cost import Bounds


# from points (..., r, d) and (..., m, d) to what they cost, (..., r, m)
Function = Callable[[Tensor, Tensor], Tensor]

# coordinates of pairs that a function may have to hold at once
_PAIRS = 1 << 22
# points of either side that are tried before anything is computed: unlike, so that sides show
_TRIED = 2, 3


@dataclass(frozen=True)
class Turned:
    """A function of two clouds whose arguments change places."""

    function: Function

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return what points of x and y cost."""
        return _called(self.function, y, x).mT


def turned(function: Function) -> Function:
    """Return the metric from target to source points."""
    return function.function if isinstance(function, Turned) else Turned(function)


def tried(function: Function, x: Tensor, y: Tensor) -> None:
    """Require costs of the right shape, and derivatives by points that wait for some."""
    pairs = zip((x, y), _TRIED, strict=True)
    few = [t.reshape(-1, *t.shape[-2:])[:1, :size].double() for t, size in pairs]
    C = _called(function, *few)
    if not torch.is_grad_enabled():
        return
    if _called(function, *(t.detach() for t in few)).requires_grad:
        raise ValueError(
            "metric must be a function of its points alone: it uses tensors that require grad, "
            "which would get none; give solve the matrix that it makes, or detach them"
        )
    if (x.requires_grad or y.requires_grad) and not C.requires_grad:
        raise ValueError(f"metric must {_FOLLOWED}")


_FOLLOWED = (
    "return what has derivatives by the points that require grad, made by functions of torch: got "
    "a tensor without any"
)


@dataclass(frozen=True)
class Blockwise:
    """What a function of two clouds costs, bounds and pulls, for few enough pairs at a time.

    Attributes:
        function: The function.
    """

    function: Function

    def join(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the costs of some rows, called for as many at once as memory may hold."""
        live = torch.is_grad_enabled() and (left.requires_grad or right.requires_grad)
        with torch.set_grad_enabled(live):
            parts = [_called(self.function, left[..., at, :], right) for at in _pieces(left, right)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)

    def bounds(self, x: Tensor, y: Tensor) -> Bounds:
        """Return the bounds of two clouds' costs, by a look at all of them."""
        low, high, forbids = math.inf, -math.inf, False
        with torch.no_grad():
            for at in _pieces(x, y):
                C = _called(self.function, x[..., at, :], y)
                finite = math.inf > C
                if not bool((finite & (-math.inf < C)).all()):
                    numbers(C, at.start)
                    forbids = True
                low = min(low, float(C.amin()))
                high = max(high, float(torch.where(finite, C, -math.inf).amax()))
        if low == math.inf:
            raise ValueError("metric must allow some pair, got inf everywhere")
        return Bounds(low, high, forbids)

    def pull(self, left: Tensor, right: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
        """Return derivatives by the points of those by the costs, by autograd."""
        twice = torch.is_grad_enabled()
        rows, columns = [], torch.zeros_like(right)
        for at in _pieces(left, right):
            x, y = left[..., at, :], right
            if twice:
                x, y = (t if t.requires_grad else t.detach().requires_grad_() for t in (x, y))
            else:
                x, y = (t.detach().requires_grad_() for t in (x, y))
            with torch.enable_grad():
                C = _called(self.function, x, y)
            if not C.requires_grad:
                raise ValueError(f"metric must {_FOLLOWED}")
            one, other = torch.autograd.grad(
                C, (x, y), by[..., at, :], create_graph=twice, materialize_grads=True,
                allow_unused=True,
            )  # fmt: skip
            rows.append(one)
            columns = columns + other
        _smooth(by, torch.cat([t.detach() for t in rows], -2), columns.detach())
        return torch.cat(rows, -2), columns


def _smooth(by: Tensor, *found: Tensor) -> None:
    """Require numbers where numbers came in."""
    if all(bool(t.isfinite().all()) for t in found) or not bool(by.isfinite().all()):
        return
    raise RuntimeError(
        "metric has a derivative that is no number, as a root has where points coincide: let it "
        "take torch.cdist, or add a small number under the root"
    )


def _pieces(x: Tensor, y: Tensor) -> Iterator[slice]:
    """Yield the rows of x in parts of which all pairs with y have a bounded size."""
    n, m, d = x.shape[-2], y.shape[-2], x.shape[-1]
    size = max(1, at_once(x.device, _PAIRS) // (m * d * max(1, x.shape[:-2].numel())))
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))


def _called(function: Function, x: Tensor, y: Tensor) -> Tensor:
    # copies, for a function that works in place: the points are the caller's, and read again
    C: Any = function(x.clone(), y.clone())
    shape = (*x.shape[:-1], y.shape[-2])
    got = tuple(C.shape) if isinstance(C, Tensor) else type(C).__name__
    if got != shape:
        raise ValueError(
            "metric must return what points cost, a tensor (..., r, m) for points x (..., r, d) "
            f"and y (..., m, d): for {tuple(x.shape)} and {tuple(y.shape)} it must be {shape}, "
            f"got {got}"
        )
    return checks.strided("what metric returns", C).to(x.dtype)


def numbers(C: Tensor, start: int) -> None:
    """Require costs above -inf."""
    bad = C.isnan() | (-math.inf == C)
    if bool(bad.any()):
        *_, i, j = checks.first_index(bad)
        value = float(C[checks.first_index(bad)])
        raise ValueError(
            f"metric must return numbers above -inf, got {value:.4g} between point {start + i} of "
            f"x and point {j} of y"
        )
