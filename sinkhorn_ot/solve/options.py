"""How a call of solve is to go about it: the options beside the problem, checked."""

import re
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, checks, shown
from sinkhorn_ot.results import ON_FAIL, OnFail
from sinkhorn_ot.solvers import METHODS, Callback, Keeper, MethodName, Sinkhorn
from sinkhorn_ot.sweeps import ALONE, Ranks

from .checkpoints import checked, fingerprint, opened


MAX_ITER = 10_000


@shown
@dataclass(frozen=True)
class Options:
    """Options of `solve`, whose docstring says what they mean."""

    method: MethodName | Sinkhorn
    tol: float | None
    max_iter: int
    n_iter: int | None
    on_fail: OnFail
    progress: bool
    callback: Callback | None
    checkpoint: Any = None

    def checked(self, reg: Any) -> "Options":
        """Require options that make sense, alone and together."""
        checks.one_of("on_fail", self.on_fail, ON_FAIL)
        max_iter = checks.count("max_iter", self.max_iter)
        given = {
            "method": not isinstance(self.method, str) or self.method not in ("auto", "sinkhorn"),
            "tol": self.tol is not None,
            "max_iter": max_iter != MAX_ITER,
            "on_fail": self.on_fail == "raise",
            "progress": checks.flag("progress", self.progress),
            "callback": self.callback is not None,
            "checkpoint": self.checkpoint is not None,
        }
        if reg is None:
            raise ValueError("reg must be given: a number above zero, or use solve_exact for none")
        checks.callback("callback", self.callback)
        n_iter = self.n_iter
        if n_iter is not None:
            checks.unused("n_iter", [name for name, is_given in given.items() if is_given])
            n_iter = checks.count("n_iter", n_iter)
        kept = checked(self.checkpoint)
        return replace(self, max_iter=max_iter, n_iter=n_iter, checkpoint=kept)

    def terms(self) -> dict[str, object]:
        """Return what must be the same on all ranks of a group."""
        told: dict[str, object] = {**vars(self), "callback": self.callback is not None}
        # one of them shows progress, whoever asks for it
        del told["progress"]
        # a solver is the same where it says the same
        return told | {"method": repr(self.method)}

    def tolerance(self, problem: Problem) -> float:
        """Return the error to reach."""
        if self.tol is None:
            return 1e-9 if problem.dtype == torch.float64 else 1e-6
        return checks.positive("tol", self.tol)

    def keeper(self, problem: Problem, u: Tensor | None, v: Tensor | None) -> Keeper | None:
        """Return who keeps where the solve of a problem from a start stands, if anybody is to."""
        if self.checkpoint is None:
            return None
        ranks = ALONE if problem.spread is None else cast(Ranks, problem.spread.ranks)
        # where an object lies is no part of what it is
        method = re.sub(r" at 0x[0-9a-f]+", "", str(self.method))
        start = {"method": method, "init": [u, v]}
        asked = ranks.agree(lambda: fingerprint(problem, **start))
        return opened(self.checkpoint, asked, problem.a.device, ranks)

    def solver(self, problem: Problem) -> Sinkhorn | None:
        """Return the solver that is asked for; None leaves the choice."""
        method = self.method
        if isinstance(method, Sinkhorn):
            solver: Sinkhorn | None = method
        elif callable(getattr(method, "start", None)):
            given = f"{method.__name__}()" if isinstance(method, type) else repr(method)
            raise ValueError(f"method must be a solver: pass Sinkhorn({given})")
        elif isinstance(method, type):
            raise ValueError(f"method must be a solver, not its class: pass {method.__name__}()")
        else:
            solver = METHODS[checks.one_of("method", method, tuple(METHODS))]
        if solver is not None and solver.needs_exact and not problem.exact:
            raise ValueError(f"method {solver.name!r} needs exact marginals, got {problem.asked}")
        if solver is not None and solver.needs_exact and problem.beside is not None:
            raise ValueError(f"method {solver.name!r} needs all columns on each rank: take 'auto'")
        return solver
