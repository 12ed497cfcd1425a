"""The transport problem: validated once, flat, frozen, and without any choice of solver."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from .costs import Bounds, Cost
from .penalties import Moved, Penalty
from .rows import entries
from .show import shown


Relax = tuple[float, float]
Penalties = tuple[Penalty | None, Penalty | None]

EXACT: Relax = (math.inf, math.inf)


class Holders(Protocol):
    """Processes that each hold rows of one problem and make the same calls in the same order."""

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of each number over the processes."""
        ...

    def max(self, x: Tensor) -> Tensor:
        """Return the largest of each number over the processes."""
        ...

    def attempt(self, act: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Return what `act` does, or NaN in the shape of another where it raises."""
        ...

    def settle(self) -> None:
        """Raise on every process what an attempt raised on one; all call it together."""
        ...


@shown
@dataclass(frozen=True, eq=False)
class Spread:
    """What all rows of a problem are together.

    Attributes:
        ranks: Who holds them.
        n: How many they are.
        mass: Their total weight, (B,).
    """

    ranks: Holders
    n: int
    mass: Tensor


@shown
@dataclass(frozen=True, eq=False)
class Beside:
    """Which columns of a problem are held here, where others hold the same rows and other columns.

    Attributes:
        ranks: Who holds them.
        columns: The columns that are held here.
    """

    ranks: Holders
    columns: slice


@shown
@dataclass(frozen=True, eq=False)
class Problem:
    """Move the weights `a` onto the weights `b` at the least total cost, smoothed by `reg`.

    The batch is flat: B problems, whose cost may be one (shared by all) or B. Every tensor has an
    entry per problem, first.

    Attributes:
        cost: Flat cost, batch (1,) or (B,).
        a: Source weights in the working dtype, shape (B, n).
        b: Target weights in the working dtype, shape (B, m).
        reg: Entropic regularisation in units of the cost, shape (B,); 0 means exact transport.
        relax: KL penalty on each marginal; inf keeps it exact, 0 leaves it free, and nan says that
            the side has a penalty of another kind.
        batch_shape: Leading dimensions of the caller.
        dtype: What the caller is given back: float64 or float32.
        bounds: Where the entries of the cost lie; unknown bounds are infinite.
        shift: What is taken off every cost before it is scaled: scaled potentials answer the rest.
        aside: Weights taken off `a` and `b`, (B, n) and (B, m): of points on relaxed sides that no
            pair allows. No plan moves them, and the objective counts them. None if there are none.
        rounded: How far sums of the weights may be off, relative to their mass, because they were
            given in less than float64.
        far: Pairs that cost more are forbidden, because no plan could use them at this reg.
        there: Which points are, (B, n) and (B, m), where others are padding: without weight, and
            told as zero whatever they are. None if there is no padding.
        one_reg: The regularisation of all problems, if one number was given: to know it takes no
            wait for the device.
        penalties: Penalties of other kinds, per side; None where `relax` says it all.
        spread: Who holds the other rows, where these are not all; None if they are.
        beside: Who holds costs of the other columns, where the cost has not all of them.
    """

    cost: Cost
    a: Tensor
    b: Tensor
    reg: Tensor
    relax: Relax
    batch_shape: torch.Size
    dtype: torch.dtype
    bounds: Bounds
    shift: float = 0.0
    aside: tuple[Tensor, Tensor] | None = None
    rounded: float = 0.0
    far: float = math.inf
    there: tuple[Tensor, Tensor] | None = None
    one_reg: float | None = None
    penalties: Penalties = (None, None)
    spread: Spread | None = None
    beside: Beside | None = None

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Number of problems, of source points and of target points."""
        return self.a.shape[0], self.cost.shape[0], self.b.shape[1]

    @property
    def columns(self) -> slice:
        """The columns whose costs are held here."""
        return slice(None) if self.beside is None else self.beside.columns

    @property
    def held(self) -> tuple[int, int, int]:
        """Number of problems, and of source and target points whose costs are held here."""
        return self.a.shape[0], *self.cost.shape

    @property
    def block(self) -> "Problem":
        """The problem of the costs that are held here, as if there were no others."""
        if self.spread is None:
            return self
        return replace(self, b=self.b[:, self.columns], beside=None, spread=None)

    @property
    def rows(self) -> int:
        """Number of source points, wherever they are held."""
        return self.shape[1] if self.spread is None else self.spread.n

    @property
    def shared(self) -> bool:
        """Whether several problems share one cost."""
        return self.cost.batch_shape[0] < self.a.shape[0]

    @property
    def exact(self) -> bool:
        """Whether both marginals are exact: neither is relaxed or free."""
        return self.relax == EXACT

    @property
    def one_mass(self) -> bool:
        """Whether both sides fix the mass of a plan, so that potentials share a constant."""
        return self.exact or all(isinstance(penalty, Moved) for penalty in self.penalties)

    @property
    def penalised(self) -> bool:
        """Whether a side has a penalty that is not one KL number."""
        return self.penalties != (None, None)

    @property
    def unbalanced(self) -> tuple[float | Penalty, float | Penalty]:
        """What is asked of each marginal: a number, or a penalty of another kind."""
        first, second = zip(self.relax, self.penalties, strict=True)
        return first[1] or first[0], second[1] or second[0]

    @property
    def asked(self) -> str:
        """What is asked of the marginals, in the words of a call."""
        first = self.penalties[0]
        return first.asked() if isinstance(first, Moved) else f"unbalanced={self.unbalanced}"

    @property
    def work(self) -> torch.dtype:
        """Dtype of weights and potentials inside."""
        return self.a.dtype

    @property
    def masses(self) -> tuple[Tensor, Tensor]:
        """Total weights of both sides, those set aside included, (B,) each."""
        a, b = self.a.sum(-1), self.b.sum(-1)
        if self.aside is not None:
            a, b = a + self.aside[0].sum(-1), b + self.aside[1].sum(-1)
        return a if self.spread is None else self.spread.mass, b

    def summed(self, x: Tensor, side: int) -> Tensor:
        """Return the sum of numbers of a side's points, (..., n) or (..., m), wherever held."""
        return self.joined(x.sum(-1)) if side == 0 else x.sum(-1)

    def joined(self, x: Tensor) -> Tensor:
        """Return sums over the rows that are held here as sums over all rows."""
        return x if self.spread is None else self.spread.ranks.sum(x)

    def gathered(self, x: Tensor) -> Tensor:
        """Return sums over the costs that are held here as sums over all costs."""
        return self.joined(x if self.beside is None else self.beside.ranks.sum(x))

    def least(self, x: Tensor) -> Tensor:
        """Return the least of numbers of the rows that are held here as those of all rows."""
        return x if self.spread is None else -self.spread.ranks.max(-x)

    def least_beside(self, x: Tensor) -> Tensor:
        """Return the least of numbers of the columns that are held here as those of all."""
        return x if self.beside is None else -self.beside.ranks.max(-x)

    def tried(self, act: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Return what reading the cost comes to, or NaN where others hold rows and it fails.

        They are not left waiting, and are told when all `settle`.
        """
        return act() if self.spread is None else self.spread.ranks.attempt(act, like)

    def settle(self) -> None:
        """Raise wherever rows are held what failed at one of the holders."""
        if self.spread is not None:
            self.spread.ranks.settle()

    @property
    def shifts(self) -> tuple[float, float]:
        """What of `shift` each potential gets back: an exact side's takes any constant."""
        return (self.shift, 0.0) if math.isinf(self.relax[0]) else (0.0, self.shift)

    @cached_property
    def least_reg(self) -> float:
        """The smallest regularisation of a problem."""
        return float(self.reg.min()) if self.one_reg is None else self.one_reg

    @cached_property
    def resolution(self) -> float:
        """Relative error of the plan that rounding cost / reg makes."""
        return self.rounding(self.shift)

    def rounding(self, shift: float = 0.0) -> float:
        """Return the relative error of rounding cost / reg, once `shift` is off every cost."""
        largest = max(abs(self.bounds.low - shift), abs(self.bounds.high - shift))
        return torch.finfo(self.work).eps * largest / self.least_reg

    def select(self, index: Tensor) -> "Problem":
        """Return the problems at `index` of the flat batch."""
        # of no problem at all some cost is there, for costs are never empty
        some = index if index.numel() else index.new_zeros(1)
        cost = self.cost if self.shared else self.cost.select(some)
        at = entries(index)
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        few: dict[str, Any] = {k: t[at] for k, t in held.items() if isinstance(t, Tensor)}
        for name in ("aside", "there"):
            if pair := held[name]:
                few[name] = pair[0][at], pair[1][at]
        if self.spread is not None:
            few["spread"] = replace(self.spread, mass=self.spread.mass[at])
        if self.penalised:
            first, second = self.penalties
            few["penalties"] = first and first.select(at), second and second.select(at)
        return replace(self, cost=cost, **few)

    def transposed(self) -> "Problem":
        """Return the problem of moving `b` onto `a`."""
        assert self.spread is None, "rows that others hold cannot be columns"
        swapped = {
            "relax": self.relax[::-1],
            "aside": self.aside and self.aside[::-1],
            "there": self.there and self.there[::-1],
            "penalties": self.penalties[::-1],
        }
        return replace(self, cost=self.cost.transposed(), a=self.b, b=self.a, **cast(Any, swapped))

    def _shown(self) -> dict[str, object]:
        """Return what is shown of it: what is rare only where there is some."""
        rare = (
            ("there", self.there is None),
            ("penalties", not self.penalised),
            ("spread", self.spread is None),
            ("beside", self.beside is None),
        )
        hidden = [name for name, none in rare if none]
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in hidden}

    def blank(self, t: Tensor, side: int) -> Tensor:
        """Return numbers of a side's points, (..., n) or (..., n, k), zero in the padding."""
        if self.there is None:
            return t
        there, more = self.there[side], (1,) * (t.ndim - len(self.batch_shape) - 1)
        return torch.where(there.view(*self.batch_shape, there.shape[1], *more), t, 0.0)

    def at(self, reg: Tensor) -> "Problem":
        """Return the same problem at another regularisation."""
        return replace(self, reg=reg, one_reg=None)

    def without(self, rows: Tensor, columns: Tensor) -> "Problem":
        """Return the problem with the weights of some rows (B, n) and columns (B, m) set aside."""
        off = torch.where(rows, self.a, 0.0), torch.where(columns, self.b, 0.0)
        a, b = self.a.masked_fill(rows, 0.0), self.b.masked_fill(columns, 0.0)
        if self.aside is not None:
            off = off[0] + self.aside[0], off[1] + self.aside[1]
        return replace(self, a=a, b=b, aside=off)
