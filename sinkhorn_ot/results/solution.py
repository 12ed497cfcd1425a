"""Where a solver ended: potentials, and how they were reached."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sinkhorn_ot.problem import Problem, entries, shown

from .coupling import Scaled
from .status import Status, Stranded


@shown
@dataclass(frozen=True, eq=False)
class Solution:
    """Scaled potentials and how they were reached, for a flat batch.

    Attributes:
        u: Row potentials f / reg + log a, shape (B, n).
        v: Column potentials g / reg + log b, shape (B, m).
        error: Relative L1 marginal error of the plan, (B,); None where it was not measured.
        n_iter: Sweeps each problem took, (B,).
        status: How each problem ended, one of `Status` per problem.
        notes: Why single problems have no plan, by their number.
        scaled: The plan of one problem, if its solver has it at hand.
    """

    u: Tensor
    v: Tensor
    error: Tensor | None
    n_iter: Tensor
    status: list[Status]
    notes: dict[int, Stranded] = field(default_factory=dict)
    scaled: Scaled | None = None

    @classmethod
    def none(cls, p: Problem) -> "Solution":
        """Return what is known of problems before anything is done."""
        never = torch.full_like(p.reg, math.inf)
        status = [Status.MAX_ITER] * p.shape[0]
        return cls(p.a.log(), p.b.log(), never, torch.zeros_like(p.reg, dtype=torch.int64), status)

    @classmethod
    def joined(cls, parts: Sequence["Solution"]) -> "Solution":
        """Return solutions of one problem each as that of a batch, with all errors known."""
        u, v = torch.cat([part.u for part in parts]), torch.cat([part.v for part in parts])
        n_iter = torch.cat([part.n_iter for part in parts])
        error = torch.cat([part.error for part in parts if part.error is not None])
        status = [part.status[0] for part in parts]
        notes = {k: part.notes[0] for k, part in enumerate(parts) if 0 in part.notes}
        return cls(u, v, error, n_iter, status, notes)

    def select(self, index: Tensor) -> "Solution":
        """Return the solution of the problems at `index`."""
        numbers, at = index.tolist(), entries(index)
        notes = {i: self.notes[k] for i, k in enumerate(numbers) if k in self.notes}
        error = None if self.error is None else self.error[at]
        status = [self.status[k] for k in numbers]
        return Solution(self.u[at], self.v[at], error, self.n_iter[at], status, notes)

    def put(self, index: Tensor, other: "Solution") -> "Solution":
        """Return this solution with that of the problems at `index` replaced."""
        pairs = ((self.u, other.u), (self.v, other.v), (self.n_iter, other.n_iter))
        u, v, n_iter = (mine.index_copy(0, index, theirs) for mine, theirs in pairs)
        error = None
        if self.error is not None and other.error is not None:
            error = self.error.index_copy(0, index, other.error)
        status, notes = list(self.status), dict(self.notes)
        for at, k in enumerate(index.tolist()):
            status[k] = other.status[at]
            notes.pop(k, None)
            if at in other.notes:
                notes[k] = other.notes[at]
        return Solution(u, v, error, n_iter, status, notes)
