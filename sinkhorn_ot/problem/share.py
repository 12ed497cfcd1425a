"""What one process says of its rows of a problem, and the problem that all of them pose together.

Each looks at its own rows; what all must know is merged from what they told, in one order, so that
it is the same everywhere to the last bit.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import checks
from .costs import Bounds, Cost, Dense, GridCost, PointCloud, broadcast
from .making import dtypes, make_share
from .marginals import Array, equal_mass, flat, held, mass_rtol, tensor, weights
from .problem import EXACT, Beside, Holders, Problem, Relax, Spread
from .regularisation import regularisation
from .relaxation import relaxation
from .show import shown


# total weights of which values can be made
_MASSES = (1e-290, 1e154)


@shown
@dataclass(frozen=True, eq=False)
class Told:
    """What a process tells the others of its rows.

    Attributes:
        terms: What must be the same everywhere, by name.
        n: How many rows it has.
        masses: Their total weight in each problem; None if all rows weigh the same.
        bounds: Where their costs lie.
        rtol: How far the masses of both sides may differ by rounding.
    """

    terms: dict[str, object]
    n: int
    masses: list[float] | None
    bounds: Bounds
    rtol: float


@shown
@dataclass(frozen=True, eq=False)
class ToldBeside:
    """What a process tells those that hold the same rows and other columns.

    Attributes:
        terms: What must be the same on all of them, by name.
        b: Weights of its columns, (..., m).
        bounds: Where their costs lie.
    """

    terms: dict[str, object]
    b: Tensor
    bounds: Bounds


@shown
@dataclass(frozen=True, eq=False)
class Share:
    """The rows that a process holds, and what it was given beside them, checked.

    Attributes:
        cost: Their costs, (..., n, m); n may be zero, and m fewer than there are.
        a: Their weights, (..., n); None if all rows weigh the same.
        b: Weights of the columns, (..., m), in the dtype that was given.
        reg: Regularisation, one number or one per problem.
        relax: KL penalty of each marginal.
        batch: Leading dimensions of the problems.
        uniform: Whether no weights of columns were given.
        bounds: Where the costs of these rows lie.
        beside: Who holds their costs in other columns; None if nobody does.
    """

    cost: Cost
    a: Tensor | None
    b: Tensor
    reg: Any
    relax: Relax
    batch: torch.Size
    uniform: bool
    bounds: Bounds
    beside: Beside | None = None

    @classmethod
    def read(cls, cost: Any, a: Any, b: Any, reg: Any, unbalanced: Any) -> "Share":
        """Check what one process passes."""
        cost = _rows(cost)
        n, m = cost.shape
        relax, penalties = relaxation(unbalanced)
        if penalties != (None, None):
            raise ValueError(
                "unbalanced must be numbers, KL penalties, where rows are spread over a group: "
                f"others take all rows of a problem, got {unbalanced!r:.200}"
            )
        left = None if a is None else _weights("a", a, n, cost)
        right = weights("b", b, m, cost, True)
        batch = cost.batch_shape
        if left is not None:
            batch = broadcast("cost", batch, "a", left.shape[:-1])
        batch = broadcast("cost and a", batch, "b", right.shape[:-1])
        regularisation(reg, batch, True, like=right)
        return cls(cost, left, right, reg, relax, batch, b is None, _bounds(cost))

    @property
    def told(self) -> Told:
        """What the others are told."""
        cost, a = self.cost, self.a
        masses = None
        if a is not None:
            masses = a.sum(-1, dtype=torch.float64).expand(self.batch).reshape(-1).tolist()
        rtol = mass_rtol(self.b if a is None else a, self.b)
        terms = self._terms()
        terms |= {
            "the number of columns of cost": cost.shape[1],
            "whether a is given": self.a is not None,
            "b": "none" if self.uniform else digest(self.b),
        }
        if isinstance(cost, PointCloud):
            terms["y"] = digest(cost.y)
        return Told(terms, cost.shape[0], masses, self.bounds, rtol)

    @property
    def told_beside(self) -> ToldBeside:
        """What those are told that hold the same rows and other columns."""
        cost = self.cost
        terms = self._terms()
        terms |= {
            "the number of rows of cost": cost.shape[0],
            "a": "none" if self.a is None else digest(self.a),
            "whether b is given": not self.uniform,
            "the dtype of b": self.b.dtype,
        }
        if isinstance(cost, PointCloud):
            terms["x"] = digest(cost.x)
        return ToldBeside(terms, self.b.cpu(), self.bounds)

    def widened(self, told: Sequence[ToldBeside], place: int, ranks: Holders) -> "Share":
        """Return the share of a process that knows what those told who hold the same rows.

        Args:
            told: What they told, in their order.
            place: The place of this process among them.
            ranks: They.
        """
        sizes = [t.b.shape[-1] for t in told]
        start = sum(sizes[:place])
        parts = [t.b.to(self.b.device).expand(*self.batch, -1) for t in told]
        b = (
            torch.full_like(torch.cat(parts, -1), 1.0 / sum(sizes))
            if self.uniform
            else torch.cat(parts, -1)
        )
        low, high = min(t.bounds.low for t in told), max(t.bounds.high for t in told)
        bounds = Bounds(low, high, any(t.bounds.forbids for t in told))
        beside = Beside(ranks, slice(start, start + sizes[place]))
        return replace(self, b=b, bounds=bounds, beside=beside)

    def _terms(self) -> dict[str, object]:
        """Return what must be the same on all who hold a part of the problem."""
        cost = self.cost
        terms: dict[str, object] = {
            "the kind of cost": type(cost).__name__,
            "the leading dimensions of cost and weights": tuple(self.batch),
            "the dtype of cost": cost.dtype,
            "the device of cost": cost.device.type,
            "reg": digest(self.reg),
            "unbalanced": self.relax,
        }
        if isinstance(cost, PointCloud):
            metric = cost.metric if isinstance(cost.metric, str) else "a function"
            scale = None if cost.scale is None else digest(cost.scale)
            terms |= {"metric": metric, "power": cost.power, "scale": scale}
        return terms


def pose_share(share: Share, told: Sequence[Told], ranks: Holders) -> Problem:
    """Return the problem of a process, that knows what all told.

    Raises:
        ValueError: On all alike, if together they pose none.
    """
    n = sum(t.n for t in told)
    if n == 0:
        raise ValueError("cost must hold rows on some rank of the group, got none on any")
    bounds = _merged([t.bounds for t in told if t.n])
    rtol = max(t.rtol for t in told)
    batch, work = share.batch, dtypes(share.cost)[1]
    b, mass = flat(share.b, batch, work, True), _mass(told, batch.numel())
    if dtypes(share.cost)[0] == torch.float32 or share.relax == EXACT:
        both = np.stack([mass, tensor(b).sum(-1, dtype=torch.float64).cpu().numpy()])
        masses = both if isinstance(b, np.ndarray) else torch.from_numpy(both).to(b.device)
        if dtypes(share.cost)[0] == torch.float32:
            held(masses)
        if share.relax == EXACT:
            b = equal_mass(masses, b, rtol)
    b = tensor(b)
    a = share.a
    if a is None:
        a = checks.full((*batch, share.cost.shape[0]), 1.0 / n, work, share.cost.device)
    spread = Spread(ranks, n, torch.from_numpy(mass).to(b.device, work))
    given = {share.b.dtype} | ({torch.float64} if share.a is None else {share.a.dtype})
    return make_share(
        share.cost,
        a,
        b.reshape(*batch, -1),
        share.reg,
        bounds,
        spread,
        beside=share.beside,
        relax=share.relax,
        rounded=0.0 if given == {torch.float64} else rtol,
    )


def digest(x: Any) -> str:
    """Return what tells numbers from others, in few words."""
    if not isinstance(x, (Tensor, np.ndarray)) or x.ndim == 0:
        return repr(x if not isinstance(x, (Tensor, np.ndarray)) else x.item())
    t = torch.as_tensor(x).detach().cpu().contiguous()
    held = t.reshape(-1).view(torch.uint8).numpy()
    seen = hashlib.blake2b(held.data, digest_size=8)
    return f"{tuple(t.shape)} of sum {float(t.double().sum()):.9g} ({seen.hexdigest()})"


def _mass(told: Sequence[Told], size: int) -> Array:
    """Return the total weight of all rows, (B,)."""
    masses = [t.masses for t in told if t.masses is not None]
    if not masses:
        return np.ones(size)
    mass: Array = np.array(masses).sum(0)
    low, high = _MASSES
    if not (mass.min() >= low and mass.max() < high):
        k = int((~((mass >= low) & (mass < high))).argmax())
        where = f" in problem {k}" if size > 1 else ""
        raise ValueError(
            f"a must have a total weight from {low:g} to {high:g} over all ranks, got "
            f"{mass[k]:.3g}{where}"
        )
    return mass


def _merged(bounds: Sequence[Bounds]) -> Bounds:
    """Return bounds on the costs of all rows."""
    low = min(b.low for b in bounds)
    if low == math.inf:
        raise ValueError("cost must allow some pair, got inf everywhere")
    return Bounds(low, max(b.high for b in bounds), any(b.forbids for b in bounds))


def _bounds(cost: Cost) -> Bounds:
    """Return bounds on the costs of some rows, which may be none and may be all forbidden."""
    if cost.shape[0] == 0:
        return Bounds(math.inf, -math.inf)
    if isinstance(cost, Dense) and bool((checks.constant("cost", cost.C) == math.inf).all()):
        return Bounds(math.inf, -math.inf, True)
    return cost.validate()


def _rows(cost: Any) -> Cost:
    """Return the costs of some rows, which may be none."""
    if isinstance(cost, GridCost):
        raise ValueError(
            "cost must be rows where they are spread over a group, got a GridCost, whose points "
            "are all: solve it in one process"
        )
    if not hasattr(cost, "tiles"):
        t = checks.tensor("cost", cost)
        cost = Dense._of(checks.at_least_dims("cost", t, 2, "(..., n, m)", lacking=2))
    found: Cost = cost
    if found.device.type == "meta":
        raise ValueError("cost must hold numbers, got a tensor on the meta device")
    return found


def _weights(name: str, w: Any, size: int, cost: Cost) -> Tensor:
    """Return weights of some rows, (..., n), which may be none and may all be zero."""
    t = checks.tensor(name, w, whole=True)
    checks.same_device(name, t, cost.device, "cost")
    if t.ndim < 1 or t.shape[-1] != size:
        raise ValueError(
            f"{name} must have shape (..., {size}), the rows that this rank holds, got "
            f"{tuple(t.shape)}"
        )
    if t.numel():
        checks.finite(name, t)
        if bool((t < 0).any()):
            checks.refuse(name, "be non-negative", t, t < 0)
    return t
