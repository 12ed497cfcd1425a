"""Two measures on a line or a circle: the arguments, checked, and flat in float64."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.exact.line import Numbers, constants, tensor
from sinkhorn_ot.problem import broadcast, checks, mass_rtol, shown


# how far masses of float64 may differ by rounding, and what a total weight may be
_RTOL = 2e-7
_LEAST, _MOST = 1e-290, 1e154


@shown
@dataclass(frozen=True, eq=False)
class Measures:
    """Points and weights of a flat batch, in float64: on a CPU arrays, unless somebody waits.

    Attributes:
        x: Source points, (B, n).
        y: Target points, (B, m).
        a: Source weights, (B, n).
        b: Target weights, (B, m), of the same total.
        uniform: Whether nobody gave weights.
        reach: No two points are further apart.
        batch_shape: Leading dimensions of the caller.
        dtype: What the caller is given back.
        moves: Whether somebody waits for derivatives by points.
        weighs: Whether somebody waits for derivatives by weights.
    """

    x: Numbers
    y: Numbers
    a: Numbers
    b: Numbers
    uniform: bool
    reach: float
    batch_shape: torch.Size
    dtype: torch.dtype
    moves: bool = False
    weighs: bool = False

    @property
    def waits(self) -> bool:
        """Whether somebody waits for derivatives."""
        return (self.moves or self.weighs) and torch.is_grad_enabled()

    def out(self, t: Numbers) -> Tensor:
        """Give flat numbers the caller's leading dimensions and dtype, as a tensor."""
        flat = tensor(t)
        flat = flat.reshape((*self.batch_shape, *flat.shape[1:])) if self.batch_shape else flat[0]
        wide = flat.is_floating_point() and flat.dtype != self.dtype
        return flat.to(self.dtype) if wide else flat


def measures(x: Any, y: Any, a: Any, b: Any) -> Measures:
    """Check the arguments of a call, and return them flat."""
    if (plain := _plain(x, y, a, b)) is not None:
        return plain
    x, y = points("x", x, 1, "(..., n)"), points("y", y, 1, "(..., m)")
    checks.same_device("y", y, x.device, "x")
    batch = broadcast("x", x.shape[:-1], "y", y.shape[:-1])
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    uniform = a is None and b is None
    a, b = weights("a", a, x.shape[-1], x, "x"), weights("b", b, y.shape[-1], y, "y")
    batch = broadcast("x and y", batch, "a", a.shape[:-1])
    batch = broadcast("x, y and a", batch, "b", b.shape[:-1])
    moves, weighs = (any(t.requires_grad for t in pair) for pair in ((x, y), (a, b)))
    rtol = mass_rtol(a, b)
    if not uniform:
        a, b = (t.double().expand(*batch, t.shape[-1]) for t in (a, b))
        b = same_mass(a, b, rtol)
    reach = _reach(*checks.extremes(x.detach().double(), y.detach().double()))
    known = uniform, reach, batch, dtype, moves, weighs
    x, y, a, b = (_flat(t, batch) for t in (x, y, a, b))
    if torch.is_grad_enabled() and (moves or weighs):
        return Measures(x, y, a, b, *known)
    return Measures(constants(x), constants(y), constants(a), constants(b), *known)


def _plain(x: Any, y: Any, a: Any, b: Any) -> Measures | None:
    """Return one problem, if a short look shows that it is as plain as most are.

    What it makes is what `measures` does, which it leaves whatever has more to it.
    """
    x, y = _copy(x), _copy(y)
    if x is None or y is None or not x.size * y.size > 0:
        return None
    reach = _reach(*(float(end.reduce(t)) for t in (x, y) for end in (np.minimum, np.maximum)))
    # nan compares as false
    if not reach < math.inf:
        return None
    uniform = a is None and b is None
    a, b = _uniform(x.size) if a is None else _copy(a), _uniform(y.size) if b is None else _copy(b)
    if a is None or b is None or a.size != x.size or b.size != y.size:
        return None
    if not uniform:
        masses = float(np.add.reduce(a)), float(np.add.reduce(b))
        if not (_LEAST < masses[0] < _MOST and abs(masses[0] - masses[1]) <= _RTOL * masses[0]):
            return None
        if not (np.minimum.reduce(a) >= 0 and np.minimum.reduce(b) >= 0):
            return None
        b *= masses[0] / masses[1]
    return Measures(x[None], y[None], a[None], b[None], uniform, reach, torch.Size(), torch.float64)


def _reach(low: float, high: float, other_low: float, other_high: float) -> float:
    """Return how far points are apart at most, from the ends of both sides; nan if one is."""
    ends = max(high - other_low, other_high - low, high - low, other_high - other_low)
    # what compares as false with nan may hide it
    return ends + 0 * (low + other_low)


def _copy(t: Any) -> Any:
    """Return a copy of an array, or of a tensor on the CPU, of float64 in one dimension."""
    if isinstance(t, Tensor):
        if type(t) is not Tensor or t.dtype != torch.float64 or t.device.type != "cpu":
            return None
        if t.requires_grad or t.layout is not torch.strided or checks.transforming():
            return None
        return np.array(t.numpy(force=True)) if t.ndim == 1 else None
    plain = type(t) is np.ndarray and t.dtype == np.float64 and t.ndim == 1
    return np.array(t) if plain else None


def _uniform(size: int) -> Any:
    held = np.empty(size)
    held.fill(1 / size)
    return held


def points(name: str, x: Any, dims: int, shape: str) -> Tensor:
    """Return points as a tensor of finite numbers."""
    if isinstance(x, Tensor):
        checks.own(name, x)
    t = checks.at_least_dims(name, checks.tensor(name, x, whole=True, graph=True), dims, shape)
    checks.finite(name, checks.present(name, t).detach())
    return t


def weights(name: str, w: Any, n: int, points: Tensor, owner: str) -> Tensor:
    """Return the weights of n points, (..., n), uniform ones if none are given."""
    if w is None:
        return checks.full((n,), 1 / n, torch.float64, points.device)
    if isinstance(w, Tensor):
        checks.own(name, w)
    t = checks.tensor(name, w, whole=True, graph=True)
    checks.at_least_dims(name, t, 1, f"(..., {n})")
    checks.same_device(name, t, points.device, owner)
    if t.shape[-1] != n:
        raise ValueError(f"{name} must have shape (..., {n}) to fit {owner}, got {tuple(t.shape)}")
    checks.weights(name, checks.present(name, t).detach())
    return t


def _flat(t: Tensor, batch: torch.Size) -> Tensor:
    n = t.shape[-1]
    return t.double().expand(*batch, n).reshape(batch.numel(), n)


def same_mass(a: Tensor, b: Tensor, rtol: float) -> Tensor:
    """Require one mass on both sides, (..., n) and (..., m); return `b` scaled to match."""
    ratio = a.sum(-1) / b.sum(-1)
    off = (ratio.detach() - 1).abs()
    if float(off.max()) > rtol:
        k = checks.first_index(off > rtol)
        where = f" in problem {k[0] if len(k) == 1 else k}" if k else ""
        raise ValueError(
            f"a and b must have the same total mass, got {float(a[k].detach().sum()):.9g} and "
            f"{float(b[k].detach().sum()):.9g}{where}: normalise them"
        )
    return b * ratio[..., None]
