"""What every result can do: move, be read as arrays, be picked from, and be kept as plain data."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.problem import ArrayLike, Cost, checks
from sinkhorn_ot.results.status import Status

from .moving import moved, target, told_in
from .picking import picked_shaped, places
from .picture import Kind, drawn
from .sketch import Sketch
from .state import KINDS, packed, unpacked


if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    # imported by who draws
    Axes = object

# a device or its name or number; where the points of both sides are
Device = str | int | torch.device
Points = tuple[ArrayLike, ArrayLike]


R = TypeVar("R", bound="Result")


class Result:
    """A result: a frozen dataclass of tensors, and of what it can tell with them."""

    # what `numpy` tells; fields that a batch shares; why numbers cannot be told in another dtype
    _tells: ClassVar[tuple[str, ...]] = ()
    _common: ClassVar[tuple[str, ...]] = ()
    _precise: ClassVar[str] = ""
    # where a plan is that may be plotted
    _instead: ClassVar[str] = ""

    def __init_subclass__(cls, parts: tuple[type, ...] = ()) -> None:
        KINDS.update({kind.__name__: kind for kind in (cls, *parts)})

    def to(
        self: R, device: Device | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> R:
        """Return the same result on a device, in a dtype, or both, as `Tensor.to` does.

        All that it is made of goes along, so that it can tell and be solved on from there, and
        derivatives stay. It is this one where nothing changes.

        Args:
            device: Where to: a `torch.device` or its name; None leaves it where it is.
            dtype: What numbers are told in, torch.float64 or torch.float32; inside they keep all
                digits that they have. None leaves it. It may come first.

        Raises:
            ValueError: If there is no such device, the numbers of this result hang on their last
                digit, or its rows are held by a group.
        """
        where, kind = target(device, dtype)
        found = self if where is None else moved(self, where)
        return found if kind is None else found._told_in(kind)

    def cpu(self: R) -> R:
        """Return the same result on the CPU."""
        return self.to("cpu")

    def numpy(self, *names: str) -> dict[str, npt.NDArray[Any]]:
        """Return what it tells as NumPy arrays, by the names of its attributes.

        Statuses are their names, as text; bfloat16 becomes float32. What has a number per pair of
        points is left out unless it is asked for: `r.numpy("plan", "f", "g")`.

        Args:
            names: Attributes; none means all numbers but those of pairs.

        Raises:
            ValueError: If it has no such numbers, or somebody waits for their derivatives.
        """
        there = [name for name in self._tells if getattr(self, name) is not None]
        return {name: self._array(name) for name in names or there}

    def plot(
        self, ax: Axes | None = None, *, kind: Kind | None = None, points: Points | None = None
    ) -> Axes:
        """Draw the plan of one problem, with matplotlib, which is imported then.

        A matrix has the plan's marginals at its sides, beside the weights as lines, and the mass of
        neighbours together where points are many. Lines lead between clouds where the most mass
        moves, a thousand at most; a point's area is what it holds. Points of one dimension stand in
        two rows, those of three are shown on the plane in which they differ most.

        Args:
            ax: The `Axes` to draw on; None makes new ones.
            kind: "matrix" or "lines"; None means lines where points are given, the cost is a
                `PointCloud` of at most three dimensions or the points are on a line, else a matrix.
            points: Where the points of both sides are, (n, d) and (m, d), d at most 3; None means
                where those of the cost are, if it has some.

        Returns:
            The axes.

        Raises:
            ImportError: If there is no matplotlib.
            ValueError: If such a result has no plan or is of a batch, which `r[k]` picks from, or
                an argument breaks a rule.
        """
        if self._batch:
            raise ValueError(
                f"plot shows one problem, got a batch of {tuple(self._batch)}: plot r[k]"
            )
        with torch.no_grad():
            found: Axes = drawn(self._sketch(), ax, kind, points)
            return found

    def state_dict(self, *, cost: bool = True) -> dict[str, Any]:
        """Return the result as plain data, which `torch.save` writes and `torch.load` reads safely.

        `from_state_dict` makes the result of it again, whose numbers are constants.

        Args:
            cost: Whether the cost is kept. Without it a `Transport` keeps its potentials, values
                and errors; for its plan, `from_state_dict` is given the cost.

        Raises:
            ValueError: If the cost is one that no file keeps, as a stream or a function of points.
        """
        if not checks.flag("cost", cost) and not hasattr(self, "problem"):
            raise ValueError(
                f"cost must be True for a {type(self).__name__}: only a Transport and a "
                "SinkhornDistance can do without"
            )
        return packed(self, cost)

    def __len__(self) -> int:
        """Return the size of the first dimension of a batch."""
        if not self._batch:
            raise TypeError(
                f"this {type(self).__name__} is of one problem, not of a batch: it has no len()"
            )
        return self._batch[0]

    def __bool__(self) -> bool:
        """Return True: a result is there, whatever its batch."""
        return True

    def __getitem__(self: R, k: Any) -> R:
        """Return the result of some problems of a batch.

        Args:
            k: What a tensor of the batch's shape could be given: numbers, slices, tensors of either
                numbers or truths, or a tuple of such.

        Raises:
            IndexError: If there are no such problems.
            TypeError: If there is no batch.
        """
        return self._picked(places(type(self).__name__, self._batch, k))

    def __iter__(self: R) -> Iterator[R]:
        """Return the results along the first dimension of a batch, one by one."""
        return (self[k] for k in range(len(self)))

    def _sketch(self) -> Sketch:
        """Return what a picture needs."""
        raise ValueError(f"a {type(self).__name__} has no plan to plot{self._instead}")

    @property
    def _batch(self) -> torch.Size:
        """Leading dimensions."""
        return torch.Size()

    def _picked(self: R, at: Tensor) -> R:
        found: R = picked_shaped(self, at, self._batch, self._common)
        return found

    def _told_in(self: R, dtype: torch.dtype) -> R:
        if self._precise:
            raise ValueError(f"dtype must be left out for a {type(self).__name__}: {self._precise}")
        found: R = told_in(self, dtype)
        return found

    def _array(self, name: str) -> npt.NDArray[Any]:
        x = None if not isinstance(name, str) or name[:1] == "_" else getattr(self, name, None)
        if isinstance(x, Tensor) and x.layout is torch.strided:
            if x.requires_grad and torch.is_grad_enabled():
                raise ValueError(
                    f"{name} requires grad, and arrays have no derivatives: call numpy() of "
                    ".detach(), or under torch.no_grad()"
                )
            # NumPy has no such numbers
            held = x.float() if x.dtype == torch.bfloat16 else x
            array: npt.NDArray[Any] = held.numpy(force=True)
            return array
        if isinstance(x, list) and all(isinstance(s, Status) for s in x):
            each = np.array([s.name for s in x])
            return each.reshape(self._batch) if each.size == self._batch.numel() else each
        if isinstance(x, (Status, str, bool, int, float)):
            return np.array(x.name if isinstance(x, Status) else x)
        numbers = ", ".join(self._tells)
        raise ValueError(f"names must be of its numbers, such as {numbers}, got {name!r}")


def from_state_dict(state: Mapping[str, Any], cost: ArrayLike | Cost | None = None) -> Any:
    """Return the result of which `state_dict()` was made.

    Args:
        state: What it returned, or `torch.load` after `torch.save`, on any device.
        cost: The cost that was solved, if the state was made with `cost=False`: then there is a
            plan too.

    Returns:
        A result of the same kind, all of whose numbers are constants.

    Raises:
        ValueError: If it is no such state, or the cost is not the one that was solved.
    """
    return unpacked(state, cost)


def plot(
    result: Result,
    ax: Axes | None = None,
    *,
    kind: Kind | None = None,
    points: Points | None = None,
) -> Axes:
    """Draw the plan of a result of one problem, as its method `plot` does.

    Args:
        result: A result that has a plan: of `solve`, `solve_exact`, `sinkhorn_distance` or
            `solve_1d`.
        ax: The `Axes` of matplotlib to draw on; None makes new ones.
        kind: "matrix" or "lines"; None means lines where there are points to draw them between.
        points: Where the points of both sides are, (n, d) and (m, d), d at most 3; None means where
            those of the cost are, if it has some.

    Returns:
        The axes.

    Raises:
        ImportError: If there is no matplotlib.
        ValueError: If it is no result, one without a plan, or of a batch, which `r[k]` picks from,
            or an argument breaks a rule.
    """
    if not isinstance(result, Result):
        raise ValueError(f"result must be one, as solve returns it, got a {type(result).__name__}")
    return result.plot(ax, kind=kind, points=points)
