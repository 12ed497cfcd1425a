"""The one primitive: a sweep moves both scaled potentials once around a problem.

With `u = f / reg + log a` and `v = g / reg + log b` the plan is
`P_ij = exp(u_i + v_j - C_ij / reg)`. Given `v`, a sweep finds the row sums of the kernel, moves `u`
by the rule of the row marginal and returns the column sums of the plan at the new `u`. The
reduction over rows is a plain sum, whatever a block of rows is: a tile on chip, a chunk of a file,
a rank. Every solver is written on this page's protocol and on nothing else.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem


class Sweep(Protocol):
    """A problem at one `reg`, ready to be swept. Potentials are scaled, in `problem.work`."""

    problem: Problem

    def sweep(self, u: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
        """Move the rows, then sum the columns.

        Args:
            u: Current row potential, shape (B, n), used only to keep numbers in range; None if
                there is none yet.
            v: Column potential, shape (B, m); -inf where the weight is zero.

        Returns:
            The new row potential (B, n) and the log of the plan's column sums (B, m). A column
            whose sum would underflow is summed again from its maximum.
        """
        ...

    def log_sum_rows(self, v: Tensor) -> Tensor:
        """Return log sum_j exp(v_j - C_ij / reg), shape (B, n)."""
        ...

    def log_sum_columns(self, u: Tensor) -> Tensor:
        """Return log sum_i exp(u_i - C_ij / reg), shape (B, m)."""
        ...

    def apply(self, u: Tensor, v: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
        """Return P @ x for x (B, m, k), or P^T @ x for x (B, n, k), without the plan."""
        ...

    def curve(self, u: Tensor, v: Tensor) -> Tensor:
        """Return P^T diag(1 / P 1) P, (B, m, m).

        With exact rows the Hessian of the semi-dual is diag(P^T 1) minus this.
        """
        ...

    def curve_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies x (B, m) by that matrix, until the next sweep."""
        ...

    def linear(self, u: Tensor, v: Tensor) -> Tensor:
        """Return `<P, C>`, shape (B,)."""
        ...

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x (..., B, n) over all rows, wherever they are held, (..., B)."""
        ...

    def at(self, reg: Tensor) -> "Sweep":
        """Return the same problems at another `reg`, reusing storage."""
        ...

    def select(self, index: Tensor) -> "Sweep":
        """Return the problems at `index`; the old object must not be used again."""
        ...


@runtime_checkable
class Repeats(Protocol):
    """A sweep that can make several plain steps at once, in less time than one by one."""

    def repeat(self, v: Tensor, count: int) -> tuple[Tensor, int]:
        """Make `count` plain steps, or none where that would not be safe or no faster.

        Returns:
            The column potential (B, m), and how many steps led there.
        """
        ...


@runtime_checkable
class Thins(Protocol):
    """A sweep of whose pairs few may count."""

    def share(self, v: Tensor) -> float:
        """Return what a product with the curve at v costs beside one that takes every pair."""
        ...


# share of the error to reach that what leaves out pairs may leave out
LEFT_OUT = 1e-2


@runtime_checkable
class Drops(Protocol):
    """A sweep that leaves out pairs which can carry next to nothing."""

    @property
    def dropped(self) -> float:
        """At most what a pass leaves out of the plan, relative to all mass."""
        ...


@runtime_checkable
class Gathers(Protocol):
    """A sweep of points some of which are near each other, and move alike."""

    def gathered_curve(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return P^T diag(1 / P 1) P summed over groups of columns, (1, k, k), and their groups.

        Few digits will do. The group of each column is a number below k, (m,). None where that
        takes too much.
        """
        ...

    def rough_product(self, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what multiplies by P^T diag(1 / P 1) P, to some digits, as a step needs it."""
        ...


@runtime_checkable
class Sparse(Protocol):
    """A sweep of whose pairs so few may count that a factorisation is cheap."""

    def sparse_curve(self, u: Tensor, v: Tensor) -> tuple[Any, Tensor] | None:
        """Return P^T diag(1 / P 1) P as a SciPy array, and the column of each of its rows, (m,).

        None where its factors would take too much.
        """
        ...


@runtime_checkable
class Bare(Protocol):
    """A sweep that holds nothing of the size of the cost, but what was made of it once."""

    def of(self, problem: Problem) -> Sweep:
        """Return the same for a problem that has this one's cost, or its transpose."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """A sweep whose rounding depends on what it has swept, as on where its kernel was built."""

    def told(self) -> dict[str, Any]:
        """Return what it depends on, as tensors, numbers and truths, in dicts of them."""
        ...

    def take(self, memory: dict[str, Any]) -> None:
        """Sweep on, where it has not begun, as the one did that told this of itself."""
        ...


@dataclass(frozen=True)
class Coarser:
    """Where a solve of many points begins: with fewer, each in place of its neighbours.

    Attributes:
        sweep: Sweeps the problem of the fewer, at a reg that they can tell from more.
        factor: How much larger than the wanted reg that is.
        extend: Makes of their column potentials over reg, (1, k), those of all, (1, m).
    """

    sweep: Sweep
    factor: float
    extend: Callable[[Tensor], Tensor]


@runtime_checkable
class Coarsens(Protocol):
    """A sweep of points some of which are near each other."""

    def coarser(self) -> Coarser | None:
        """Return where to begin; None where fewer points would say too little."""
        ...


@dataclass(frozen=True)
class Rules:
    """How a solve that nobody watches is annealed and accelerated, and when it ends.

    Attributes:
        tol: Relative L1 marginal error to reach.
        max_iter: Sweeps allowed, at least one for each stage.
        patience: Sweeps without progress after which a problem counts as stalled.
        stages: How many regs there are, the last of which is the wanted one.
        factor: What reg is divided by between stages.
        rough_tol: Error at which a stage before the last one ends.
        rough_iter: Sweeps at which a stage before the last one ends.
        memory: Differences of past steps that Anderson's acceleration keeps.
        growth: An error this many times the best so far is a failure.
        wait: Steps of the fallback after the first failure.
        begin: Error below which extrapolation begins.
    """

    tol: float
    max_iter: int
    patience: int
    stages: int
    factor: float
    rough_tol: float = field(repr=False)
    rough_iter: int = field(repr=False)
    memory: int
    growth: float
    wait: int
    begin: float


@runtime_checkable
class Whole(Protocol):
    """A sweep that can solve problems in one launch each, where they fit; None where they do not.

    Nothing waits for the device.
    """

    def fixed(self, n_iter: int) -> tuple[Tensor, Tensor] | None:
        """Make plain sweeps from nothing; returns the scaled potentials (B, n) and (B, m)."""
        ...

    def whole(self, n_iter: int, tol: float) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Make at most `n_iter` plain sweeps from nothing.

        Returns:
            The scaled potentials (B, n) and (B, m), the error of both marginals (B,), and the
            sweeps made (B,).
        """
        ...

    def annealed(
        self, rules: Rules, v: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None:
        """Anneal and accelerate, from the scaled column potential `v` (B, m) or from nothing.

        Returns:
            The scaled potentials (B, n) and (B, m), the marginal error (B,), the sweeps made (B,),
            and how it ended (B,): 0 within tol, 1 at max_iter, 2 stalled, 3 with what is no number.
        """
        ...


@runtime_checkable
class Moves(Protocol):
    """An accelerated run over a batch, which takes a sweep's sums and returns the next step."""

    def step(self, u: Tensor, psi: Tensor, log_s: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next column potentials (B, m), and the marginal error at those given (B,)."""
        ...

    def select(self, index: Tensor) -> "Moves":
        """Keep the problems at `index`."""
        ...


@runtime_checkable
class Accelerates(Protocol):
    """A sweep whose device takes Anderson's steps in few launches; none beside a free marginal."""

    def moves(self, *, memory: int, growth: float, wait: int, begin: float) -> Moves | None:
        """Return a run that has not begun, None where it is to remember more than it can.

        See `Rules` for the arguments.
        """
        ...


def weightless(scaled: Tensor, log_weight: Tensor) -> Tensor:
    """Return potentials in units of reg, f / reg or g / reg: zero where there is no weight."""
    return torch.where(log_weight > -math.inf, scaled - log_weight, 0.0)


def elasticity(problem: Problem, side: int) -> Tensor:
    """Return rho / (rho + reg) per problem, (B,), of rows or columns: 1 if exact, 0 if free."""
    rho = problem.relax[side]
    return torch.ones_like(problem.reg) if math.isinf(rho) else rho / (rho + problem.reg)


def move_rows(problem: Problem, log_a: Tensor, log_sum: Tensor) -> Tensor:
    """Return the row potential that answers the row sums: log a - kappa * log_sum for KL.

    What other penalties say takes all rows of a problem. A row without weight, or one whose every
    pair is forbidden, stays at -inf; what is no number stays one that nobody believes.
    """
    if (penalty := problem.penalties[0]) is not None:
        u = log_a + penalty.answer(log_sum, problem.a, problem.reg[:, None])
    elif math.isinf(problem.relax[0]):
        u = log_a - log_sum
    elif problem.relax[0] == 0:
        return log_a
    else:
        u = log_a - elasticity(problem, 0)[:, None] * log_sum
    return torch.where((log_a > -math.inf) & (log_sum != -math.inf), u, -math.inf)


def sweep_apart(sweep: Sweep, log_a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `sweep` does, by a pass for the rows and one for the columns.

    So rows are moved that have to know of each other, or have a penalty that no kernel knows.
    """
    u = move_rows(sweep.problem, log_a, sweep.log_sum_rows(v))
    return u, sweep.log_sum_columns(u) + v
