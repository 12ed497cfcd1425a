"""The cost between points of grids: a sum of one-dimensional costs, of which no matrix is made."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import checks
from sinkhorn_ot.problem.rows import ArrayLike, Block
from sinkhorn_ot.problem.show import shown

from .cost import Bounds, tiles


@shown
@dataclass(frozen=True, eq=False, init=False)
class GridCost:
    """The cost between the points of two grids, a sum over their axes, without a matrix.

    Points are numbered row by row, as `image.flatten()` numbers pixels. What two points cost is the
    sum over axes of |x_k - y_k|^p, or of what a matrix for that axis says. Neither the costs of all
    pairs nor their kernel is ever stored: a sweep is a product along each axis, n^(1 + 1/d)
    multiplications for n points in d dimensions.

    Source of the sweep: J. Solomon et al., Convolutional Wasserstein distances, ACM Transactions on
    Graphics 2015.

    Args:
        axes: One entry per axis: a size n, for n points from 0 to 1; coordinates (n,), in any
            order; or the costs along that axis, (n, m), where inf forbids.
        targets: Axes of the target grid, as sizes or coordinates; None means those of the source.
        p: The power of distances, at least 1; one number or one per axis.
        dtype: Storage type where axes are sizes; None means float64.
        device: Where those live; None means the CPU.

    Attributes:
        along: What it costs to move along each axis, (..., n_k, m_k).
        ends: Where those costs lie, axis by axis.

    Raises:
        ValueError: If an entry is none of these, or requires grad.
    """

    along: tuple[Tensor, ...]
    ends: tuple[Bounds, ...]

    def __init__(  # noqa: PLR0913
        self,
        axes: Sequence[int | ArrayLike],
        targets: Sequence[int | ArrayLike] | None = None,
        p: float | Sequence[float] = 2,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        dtype = torch.float64 if dtype is None else checks.floating("dtype", dtype)
        device = None if device is None else checks.device("device", device)
        like = torch.zeros((), dtype=dtype, device=device)
        sources = [_axis("axes", k, axis, like) for k, axis in enumerate(_listed("axes", axes))]
        others: list[Tensor | None] = [None] * len(sources)
        if targets is not None:
            others = [
                _axis("targets", k, y, like) for k, y in enumerate(_listed("targets", targets))
            ]
        powers = _powers(p, len(sources))
        if len(others) != len(sources):
            raise ValueError(
                f"targets must have {len(sources)} axes as axes has, got {len(others)}"
            )
        along = tuple(map(_along, range(len(sources)), sources, others, powers))
        if len({(C.dtype, C.device) for C in along}) > 1:
            kinds = ", ".join(f"{C.dtype} on {C.device}" for C in along)
            raise ValueError(f"axes must share a dtype and a device, got {kinds}")
        ends = tuple(Bounds(*checks.cost_entries(f"axes[{k}]", C)) for k, C in enumerate(along))
        object.__setattr__(self, "along", along)
        object.__setattr__(self, "ends", ends)

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions: a batch shares the grids."""
        return self.along[0].shape[:-2]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of source and target points."""
        return math.prod(self.sizes[0]), math.prod(self.sizes[1])

    @property
    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Points along each axis of the source and of the target grid."""
        return tuple(C.shape[-2] for C in self.along), tuple(C.shape[-1] for C in self.along)

    @property
    def dtype(self) -> torch.dtype:
        """Storage type of the costs along axes."""
        return self.along[0].dtype

    @property
    def device(self) -> torch.device:
        """Where they live."""
        return self.along[0].device

    @property
    def stored(self) -> bool:
        """Whether the entries are in memory: they are not."""
        return False

    @property
    def memory(self) -> int:
        """Bytes of kernel that may be held: none."""
        return 0

    def flat(self, batch: torch.Size) -> "GridCost":
        """Return the cost with one batch dimension, which the whole batch shares."""
        return self._with(C.reshape(1, *C.shape[-2:]) for C in self.along)

    def select(self, index: Tensor) -> "GridCost":
        """Return the problems at `index` of a flat batch, which share it still."""
        return self

    def transposed(self) -> "GridCost":
        """Return the cost from target to source points."""
        return self._with(C.mT for C in self.along)

    def _with(self, along: Any) -> "GridCost":
        """Return a cost of the same numbers, as they were checked."""
        cost = object.__new__(GridCost)
        object.__setattr__(cost, "along", tuple(along))
        object.__setattr__(cost, "ends", self.ends)
        return cost

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the costs of rows start:stop, (1, stop - start, m)."""
        n, _ = self.shape
        places = torch.arange(start, min(stop, n), device=self.device)
        total = self.along[0].new_zeros(len(places), 1)
        for C, at in zip(self.along, torch.unravel_index(places, self.sizes[0]), strict=True):
            part = C.reshape(C.shape[-2:])[at]
            total = (total[:, :, None] + part[:, None, :]).flatten(1)
        return total[None]

    def tiles(self, size: int) -> Iterator[Block]:
        """Yield all rows in blocks of at most `size`."""
        return tiles(self, size)

    def validate(self) -> Bounds:
        """Return bounds on the entries, which are known to be numbers."""
        lows, highs, forbids = zip(*self.ends, strict=True)
        if not math.isfinite(sum(highs)):
            raise ValueError(f"axes must have finite costs, got a sum of {sum(highs):.3g}")
        return Bounds(sum(lows), sum(highs), any(forbids))


def _listed(name: str, axes: Any) -> list[Any]:
    """Return the entries of a list of axes."""
    several = np.iterable(axes) and hasattr(axes, "__len__") and not hasattr(axes, "toarray")
    if isinstance(axes, str) or not several:
        raise ValueError(f"{name} must be a list with an entry per axis, got {axes!r:.60}")
    if not (found := list(axes)):
        raise ValueError(f"{name} must have at least one axis, got none")
    return found


def _axis(name: str, k: int, axis: Any, like: Tensor) -> Tensor:
    """Return coordinates (n,) or costs (n, m) of one axis."""
    name = f"{name}[{k}]"
    if isinstance(axis, Tensor):
        checks.present(name, axis)
    if isinstance(axis, (int, np.integer)) or isinstance(axis, Tensor) and axis.ndim == 0:
        n = checks.count(name, int(axis) if isinstance(axis, Tensor) else axis)
        return torch.linspace(0, 1, n, dtype=torch.float64, device=like.device).to(like.dtype)
    t = checks.at_least_dims(name, checks.tensor(name, axis, whole=True), 1, "(n,) or (n, m)")
    if t.ndim > 2:
        raise ValueError(f"{name} must have shape (n,) or (n, m), got {tuple(t.shape)}")
    return checks.finite(name, t) if t.ndim == 1 else t


def _powers(p: Any, count: int) -> list[float]:
    many = isinstance(p, (tuple, list)) or isinstance(p, (Tensor, np.ndarray)) and p.ndim
    powers = list(p) if many else [p]
    powers = [checks.number("p", power) for power in powers]
    if len(powers) not in (1, count):
        raise ValueError(f"p must be one power or one per axis, {count}, got {len(powers)}")
    for power in powers:
        if not 1 <= power < math.inf:
            raise ValueError(f"p must be finite and at least 1, got {power!r}")
    return powers * count if len(powers) == 1 else powers


def _along(k: int, x: Tensor, y: Tensor | None, p: float) -> Tensor:
    """Return the costs along one axis, (n, m)."""
    if x.ndim == 2 or y is not None and y.ndim == 2:
        if y is not None:
            raise ValueError(f"targets[{k}] must be left out where costs are given, (n, m)")
        return x
    y = x if y is None else y
    if x.dtype != y.dtype or x.device != y.device:
        raise ValueError(
            f"axes[{k}] and targets[{k}] must share a dtype and a device, got {x.dtype} on "
            f"{x.device} and {y.dtype} on {y.device}"
        )
    return (x.double()[:, None] - y.double()[None, :]).abs().pow(p).to(x.dtype)
