"""The Sinkhorn loop: anneal, sweep, accelerate, stop; one loop for every cost, batch and device."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import _check
from .acceleration import Acceleration, Anderson, Iterate
from .anneal import Anneal
from .problem import Problem
from .status import Status
from .sweep import Sweep, elasticity


@dataclass(frozen=True, eq=False)
class Solution:
    """Scaled potentials and how they were reached, for a flat batch.

    Attributes:
        u: Row potentials f / reg + log a, shape (B, n).
        v: Column potentials g / reg + log b, shape (B, m).
        error: Relative L1 marginal error of the plan, (B,); None where it was not measured.
        n_iter: Sweeps each problem took, (B,).
        status: How each problem ended, one of `Status` per problem.
    """

    u: Tensor
    v: Tensor
    error: Tensor | None
    n_iter: Tensor
    status: list[Status]


@dataclass(frozen=True)
class Progress:
    """What a callback is told after every sweep.

    Attributes:
        n_iter: Sweeps so far.
        marginal_error: Largest relative marginal error among the problems still running.
        running: Problems still running.
        reg_factor: How much larger than asked for `reg` is at this stage of the annealing.
    """

    n_iter: int
    marginal_error: float
    running: int
    reg_factor: float


# return True to stop
Callback = Callable[[Progress], Any]


@dataclass(frozen=True)
class Sinkhorn:
    """Alternate scaling of rows and columns, annealed and accelerated.

    Source: M. Cuturi, Sinkhorn distances, NeurIPS 2013; annealing as in B. Schmitzer, Stabilized
    sparse scaling algorithms, SIAM J. Sci. Comput. 2019.

    Args:
        acceleration: `Anderson()`, `Nesterov()` or `Plain()`.
        anneal: Schedule of larger `reg` to pass through, or None for none.
        patience: Sweeps without progress after which a problem counts as stalled.
        check_every: Sweeps between two looks at the error; None means every sweep on a CPU and
            every tenth on an accelerator, where the host reads each look one look late.
    """

    acceleration: Acceleration = field(default_factory=Anderson)
    anneal: Anneal | None = field(default_factory=Anneal)
    patience: int = 1000
    check_every: int | None = None

    def __post_init__(self) -> None:
        if not callable(getattr(self.acceleration, "start", None)):
            raise ValueError(f"acceleration must be such as Anderson(), got {self.acceleration!r}")
        if not isinstance(self.anneal, Anneal | None):
            raise ValueError(f"anneal must be an Anneal or None, got {self.anneal!r}")
        _check.count("patience", self.patience)

    @property
    def name(self) -> str:
        """How the method is called in a result."""
        own = type(self.acceleration).__name__.lower()
        return "anderson, newton where it crawls" if own == "switch" else own

    def __call__(
        self,
        sweep: Sweep,
        *,
        tol: float,
        max_iter: int,
        psi: Tensor | None = None,
        callback: Callback | None = None,
    ) -> Solution:
        """Solve the problem that `sweep` serves.

        Args:
            sweep: Implementation of the primitive, bound to a problem.
            tol: Relative L1 marginal error to reach.
            max_iter: Sweeps allowed in all.
            psi: Column potentials g / reg to start from, (B, m); they replace the annealing.
            callback: Called with a `Progress` after every sweep; True stops.
        """
        p = sweep.problem
        factors = [1.0]
        if self.anneal and psi is None and math.isfinite(spread := p.bounds.high - p.bounds.low):
            factors = self.anneal.stages(spread, float(p.reg.min()))
        psi = torch.zeros_like(p.b) if psi is None else psi
        used, stopped = 0, False
        # every stage takes a sweep, and the last one must have its own
        factors = factors[-max_iter:]
        for stage, (factor, after) in enumerate(itertools.pairwise(factors), 1):
            assert self.anneal is not None
            left = max_iter - (len(factors) - stage)
            run = _Run(self, sweep.at(p.reg * factor), psi, used, callback, factor)
            run.until(self.anneal.tol, min(left, used + self.anneal.max_iter))
            used = run.n_iter
            # potentials keep their units while reg shrinks
            psi = run.psi * (factor / after)
            if stopped := run.stopped:
                psi = psi * after
                break
        run = _Run(self, sweep.at(p.reg) if used else sweep, psi, used, callback)
        run.stopped = stopped
        return run.until(tol, max_iter).solution(p)


def fixed(sweep: Sweep, n_iter: int, psi: Tensor | None = None) -> Solution:
    """Run plain sweeps without looking at the result: no check, no branch on data.

    Ends with a column step, as the textbook iteration does.
    """
    p = sweep.problem
    log_b = p.b.log()
    psi = torch.zeros_like(p.b) if psi is None else psi
    u: Tensor | None = None
    for _ in range(n_iter):
        u, log_s = sweep.sweep(u, psi + log_b)
        psi = move_columns(p, psi, log_s, log_b)
    assert u is not None
    return swept(p, u, psi + log_b, n_iter)


def swept(p: Problem, u: Tensor, v: Tensor, n_iter: int) -> Solution:
    """Return the solution that plain sweeps led to, at which nobody looked."""
    n = torch.full_like(p.reg, n_iter, dtype=torch.int64)
    return Solution(u, v, None, n, [Status.FIXED] * p.shape[0])


def move_columns(p: Problem, psi: Tensor, log_s: Tensor, log_b: Tensor) -> Tensor:
    """Return the column potentials that answer the column sums; those without weight stay."""
    if p.relax[1] == 0:
        return torch.zeros_like(psi)
    off = log_s - log_b
    moved = psi - off
    if not math.isinf(p.relax[1]):
        moved = elasticity(p)[1][:, None] * moved
    # a sum of zero means that no pair is allowed: nothing to answer
    return torch.where((log_b > -math.inf) & (log_s > -math.inf), moved, psi)


def column_error(p: Problem, psi: Tensor, log_s: Tensor) -> Tensor:
    """Return the relative L1 distance of the column sums from what they must be, (B,).

    Exact columns must sum to b; relaxed ones to b exp(-g / rho), their optimality condition.
    """
    if p.relax[1] == 0:
        return torch.zeros_like(p.reg)
    target = p.b
    if not math.isinf(p.relax[1]):
        target = target * (-psi * (p.reg / p.relax[1])[:, None]).exp()
    return (log_s.exp() - target).abs().sum(-1) / target.sum(-1)


class Look:
    """Reads the largest error of a batch now and then, without making an accelerator wait.

    There a look starts a copy to the host and returns what the look before it copied.
    """

    def __init__(self, every: int | None, device: torch.device) -> None:
        self._late = device.type != "cpu"
        self._every = every or (10 if self._late else 1)
        self._sweeps = 0
        self._copied: tuple[Tensor, torch.Event] | None = None

    def __call__(self, error: Tensor, now: bool) -> float | None:
        """Return the largest error, an earlier one on an accelerator unless `now`, or None."""
        self._sweeps += 1
        if now or (not self._late and self._sweeps % self._every == 0):
            return float(error.amax())
        if self._sweeps % self._every:
            return None
        before = self._copied
        here = torch.empty((), dtype=error.dtype, pin_memory=True)
        here.copy_(error.amax(), non_blocking=True)
        event = torch.Event(error.device)
        event.record()
        self._copied = here, event
        if before is None:
            return None
        before[1].synchronize()
        return float(before[0])


class _Run:
    """One stage: a batch that shrinks as its problems finish."""

    def __init__(
        self,
        options: Sinkhorn,
        sweep: Sweep,
        psi: Tensor,
        n_iter: int,
        callback: Callback | None,
        factor: float = 1.0,
    ) -> None:
        p = sweep.problem
        self.n_iter, self.stopped = n_iter, False
        self._options, self._callback, self._factor = options, callback, factor
        self._sweep, self._steps = sweep, options.acceleration.start(p.b)
        self._at, self._log_b = torch.arange(p.shape[0], device=psi.device), p.b.log()
        self._psi = psi
        self._u: Tensor | None = None
        self._look = Look(options.check_every, psi.device)
        # what every problem reached, at its last look
        self.psi, self.u = psi.clone(), torch.full_like(p.a, -math.inf)
        self._error = torch.full_like(p.reg, math.inf)
        self._sweeps = torch.full_like(p.reg, n_iter, dtype=torch.int64)
        self._status = [Status.MAX_ITER] * p.shape[0]
        self._best, self._since = math.inf, n_iter

    def until(self, tol: float, max_iter: int) -> "_Run":
        """Sweep until every problem is within `tol`, or no more may or can be done."""
        while len(self._at):
            p = self._sweep.problem
            self._u, log_s = self._sweep.sweep(self._u, self._psi + self._log_b)
            self.n_iter += 1
            error = column_error(p, self._psi, log_s)
            worst = self._look(error, now=self.n_iter >= max_iter)
            if worst is not None and self._over(worst, error, tol, max_iter):
                break
            psi, residual = self._psi, move_columns(p, self._psi, log_s, self._log_b) - self._psi
            self._psi = self._steps(Iterate(psi, residual, error, self._u, self._sweep))
            if worst is not None:
                self._retire(psi, error, tol)
        return self

    def _over(self, worst: float, error: Tensor, tol: float, max_iter: int) -> bool:
        """Record who finished; say whether the stage is over."""
        if self._callback is not None:
            told = Progress(self.n_iter, worst, len(self._at), self._factor)
            self.stopped = bool(self._callback(told)) or self.stopped
        if worst <= tol and bool((error <= tol).all()):
            self._record(slice(None), self._psi, error, Status.CONVERGED, tol)
            return True
        if not math.isfinite(worst):
            self._record(slice(None), self._psi, error, Status.NOT_FINITE, tol)
            return True
        if self.stopped or self.n_iter >= max_iter or self._stalled(error):
            why = Status.STOPPED if self.stopped else Status.MAX_ITER
            why = Status.STALLED if self.n_iter < max_iter and not self.stopped else why
            self._record(slice(None), self._psi, error, why, tol)
            return True
        return False

    def _stalled(self, error: Tensor) -> bool:
        total = float(error.sum())
        if total < 0.999 * self._best:
            self._best, self._since = total, self.n_iter
        return self.n_iter - self._since >= self._options.patience

    def _record(
        self, which: Tensor | slice, psi: Tensor, error: Tensor, status: Status, tol: float
    ) -> None:
        """Keep what the problems `which` of those running have reached at `psi`."""
        at = self._at[which]
        assert self._u is not None
        self.psi[at], self.u[at], self._error[at] = psi[which], self._u[which], error[which]
        self._sweeps[at] = self.n_iter
        for k, done in zip(at.tolist(), (error[which] <= tol).tolist(), strict=True):
            self._status[k] = Status.CONVERGED if done else status

    def _retire(self, psi: Tensor, error: Tensor, tol: float) -> None:
        """Take finished problems out once they are a tenth of the batch."""
        done = error <= tol
        if len(self._at) == 1 or 10 * int(done.sum()) < len(self._at):
            return
        self._record(done.nonzero()[:, 0], psi, error, Status.CONVERGED, tol)
        left = (~done).nonzero()[:, 0]
        self._at, self._psi, self._log_b = self._at[left], self._psi[left], self._log_b[left]
        self._u = None if self._u is None else self._u[left]
        self._sweep, self._steps = self._sweep.select(left), self._steps.select(left)

    def solution(self, p: Problem) -> Solution:
        """Return what was reached, for the whole batch."""
        return Solution(self.u, self.psi + p.b.log(), self._error, self._sweeps, self._status)
