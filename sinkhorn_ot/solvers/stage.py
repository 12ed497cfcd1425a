"""One stage of a solve, at one reg: sweep, step, look, until every problem is within tol."""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem
from sinkhorn_ot.results import Solution, Status
from sinkhorn_ot.sweeps import Moves, Remembers, Sweep

from .acceleration import Acceleration, Iterate, Steps
from .price import Price
from .progress import Callback, Progress
from .state import Memory, taken, told
from .steps import answer, column_error


# sweeps over which the fall of an error is measured
_WINDOW = 8
# what a stage is given anew by whoever takes it up again
_GIVEN = ("keep", "_price", "_sweep", "_log_b", "_look", "_patience", "_callback", "_fused")


class ErrorReader:
    """Reads the largest error of a batch now and then, without making an accelerator wait.

    There a look starts a copy to the host and returns what the look before it copied.
    """

    def __init__(self, every: int | None, device: torch.device) -> None:
        self._late = device.type != "cpu"
        self._every = every or (5 if self._late else 1)
        self.sweeps = 0
        self._copied: tuple[Tensor, torch.Event] | None = None

    def __call__(self, error: Tensor, now: bool) -> float | None:
        """Return the largest error, an earlier one on an accelerator unless `now`, or None."""
        self.sweeps += 1
        if now or (not self._late and self.sweeps % self._every == 0):
            return float(error.amax())
        if self.sweeps % self._every:
            return None
        before = self._copied
        here = torch.empty((), dtype=error.dtype, device="cpu", pin_memory=True)
        here.copy_(error.amax(), non_blocking=True)
        event = torch.Event(error.device)
        event.record()
        self._copied = here, event
        if before is None:
            return None
        before[1].synchronize()
        return float(before[0])


class Stage:
    """A batch at one reg, which shrinks as its problems finish."""

    def __init__(
        self,
        sweep: Sweep,
        psi: Tensor,
        steps: Steps | Moves,
        look: ErrorReader,
        patience: int,
        callback: Callback | None = None,
        n_iter: int = 0,
        factor: float = 1.0,
    ) -> None:
        """Begin.

        Args:
            sweep: Implementation of the primitive, at this stage's reg.
            psi: Column potentials g / reg to start from, (B, m).
            steps: What moves them.
            look: How the error is read.
            patience: Sweeps without progress after which a problem counts as stalled.
            callback: Told of every look; True stops.
            n_iter: Sweeps made before.
            factor: How much larger than asked for this stage's reg is.
        """
        p = sweep.problem
        self.n_iter, self.stopped = n_iter, False
        # keeps where the stage stands: told before every sweep and after the last one, and then
        # whether somebody ended it
        self.keep: Callable[[Stage, bool], None] | None = None
        # when problems are left to others; None keeps them all
        self._price: Price | None = None
        self._sweep, self._look = sweep, look
        # what takes a sweep's sums makes its own error, and a step before anybody looks
        self._steps, self._fused = steps, isinstance(steps, Moves)
        self._patience, self._callback, self._factor = patience, callback, factor
        self._at, self._log_b = torch.arange(p.shape[0], device=psi.device), p.b.log()
        self._psi = psi
        self._u: Tensor | None = None
        # what every problem reached, at its last look
        self.psi, self.u = psi.clone(), torch.full_like(p.a, -math.inf)
        self._error = torch.full_like(p.reg, math.inf)
        self._sweeps = torch.full_like(p.reg, n_iter, dtype=torch.int64)
        self._status, self._why = [Status.MAX_ITER] * p.shape[0], Status.MAX_ITER
        # the least that the largest error has been, and when
        self._best, self._since = math.inf, n_iter
        # the error of every running problem a window ago
        self._mark, self._window = self._error, 0
        # who crawled in the window before
        self._slow = torch.zeros_like(self._at, dtype=torch.bool)

    def told(self) -> Memory:
        """Return where the stage stands."""
        own = {name: told(part) for name, part in vars(self).items() if name not in _GIVEN}
        sweep = self._sweep.told() if isinstance(self._sweep, Remembers) else {}
        return {"own": own, "looks": self._look.sweeps, "sweep": sweep}

    def take(self, memory: Memory) -> None:
        """Go on from where a stage like this one stood."""
        for name, part in memory["own"].items():
            setattr(self, name, taken(part, getattr(self, name)))
        self.stopped, self._look.sweeps = False, memory["looks"]
        if len(self._at) < len(self._log_b):
            self._log_b, self._sweep = self._log_b[self._at], self._sweep.select(self._at)
        if isinstance(self._sweep, Remembers):
            self._sweep.take(memory["sweep"])

    def until(self, tol: float, max_iter: int, price: Price | None = None) -> "Stage":
        """Sweep until every problem is within `tol`, or no more may or can be done.

        Args:
            tol: Relative L1 marginal error to reach.
            max_iter: Sweeps allowed, those made before included.
            price: When a problem of the batch is left to others; None keeps them all.
        """
        self._price = None if price is None else price.select(self._at)
        while len(self._at):
            if self.keep is not None:
                self.keep(self, False)
            p = self._sweep.problem
            self._u, log_s = self._sweep.sweep(self._u, self._psi + self._log_b)
            self.n_iter += 1
            psi, moved = self._psi, None
            if self._fused:
                moved, error = cast(Moves, self._steps).step(self._u, psi, log_s)
            else:
                error = column_error(p, psi, log_s)
            worst = self._look(error, now=self.n_iter >= max_iter)
            ended = None if worst is None else self._ended(worst, error, tol, max_iter)
            over = ended is not None and bool(ended.all())
            if over:
                self._record(slice(None), psi, error, tol)
                if self.keep is None:
                    break
            if moved is None:
                residual = answer(self._sweep, self._u, psi, log_s, self._log_b) - psi
                steps = cast(Steps, self._steps)
                moved = steps(Iterate(psi, residual, error, self._u, self._sweep))
            self._psi = moved
            if over and self.keep is not None:
                # whoever keeps it may be asked to go on
                self.keep(self, self._why is not Status.STALLED)
                break
            if ended is not None:
                self._retire(ended, psi, error, tol)
        return self

    def heir(self, how: Acceleration) -> Acceleration:
        """Return what the next stage had better begin with, where this one began with `how`."""
        return getattr(self._steps, "heir", how)

    def _ended(self, worst: float, error: Tensor, tol: float, max_iter: int) -> Tensor | None:
        """Say which problems end here, (B,); None if none can have."""
        if self._callback is not None and not self.stopped:
            told = Progress(self.n_iter, worst, len(self._at), self._factor)
            self.stopped = bool(self._callback(told))
        if worst < 0.999 * self._best:
            self._best, self._since = worst, self.n_iter
        stalled = self.n_iter - self._since >= self._patience
        last = self.stopped or self.n_iter >= max_iter
        crawls = self._crawls(error, tol)
        if (
            crawls is None
            and len(self._at) == 1
            and tol < worst < math.inf
            and not (last or stalled)
        ):
            return None
        done, broken = error <= tol, ~torch.isfinite(error)
        ended = torch.ones_like(done) if last else done | broken
        if crawls is not None:
            ended |= crawls
        if stalled:
            # the worst are given up; the others have all the patience again
            ended |= error >= 0.999 * self._best
            self._best, self._since = math.inf, self.n_iter
        self._why = Status.STOPPED if self.stopped else Status.MAX_ITER if last else Status.STALLED
        return ended

    def _crawls(self, error: Tensor, tol: float) -> Tensor | None:
        """Say which problems cost less alone, (B,), by the fall of their error over two windows."""
        self._window += 1
        if self._price is None or self._window % _WINDOW:
            return None
        fall = (self._mark / error).log() / _WINDOW
        self._mark = torch.minimum(error, self._mark)
        left = (error / tol).log() / fall.clamp(min=1e-300)
        before, self._slow = self._slow, left > self._price.sweeps(len(self._at))
        return before & self._slow

    def _record(self, which: Tensor | slice, psi: Tensor, error: Tensor, tol: float) -> None:
        """Keep what the problems `which` of those running have reached at `psi`."""
        at = self._at[which]
        assert self._u is not None
        self.psi[at], self.u[at], self._error[at] = psi[which], self._u[which], error[which]
        self._sweeps[at] = self.n_iter
        for k, off in zip(at.tolist(), error[which].tolist(), strict=True):
            bad = self._why if math.isfinite(off) else Status.NOT_FINITE
            self._status[k] = Status.CONVERGED if off <= tol else bad

    def _retire(self, ended: Tensor, psi: Tensor, error: Tensor, tol: float) -> None:
        """Take ended problems out: those that failed at once, others as a tenth of the batch."""
        few = 10 * int(ended.sum()) < len(self._at)
        if few and bool((error[ended] <= tol).all()):
            return
        self._record(ended.nonzero()[:, 0], psi, error, tol)
        left = (~ended).nonzero()[:, 0]
        self._at, self._psi, self._log_b = self._at[left], self._psi[left], self._log_b[left]
        self._u = None if self._u is None else self._u[left]
        self._sweep, self._steps = self._sweep.select(left), self._steps.select(left)
        if self.keep is not None:
            # what it holds of a larger batch cannot be told
            self._sweep = self._sweep.at(self._sweep.problem.reg)
        self._mark, self._slow = self._mark[left], self._slow[left]
        self._price = None if self._price is None else self._price.select(left)

    def solution(self, p: Problem) -> Solution:
        """Return what was reached, for the whole batch."""
        return Solution(self.u, self.psi + p.b.log(), self._error, self._sweeps, self._status)
