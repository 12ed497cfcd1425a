"""Where a solver ended: potentials, and how they were reached."""

from dataclasses import dataclass, field

from torch import Tensor

from sinkhorn_ot.problem import shown

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
    """

    u: Tensor
    v: Tensor
    error: Tensor | None
    n_iter: Tensor
    status: list[Status]
    notes: dict[int, Stranded] = field(default_factory=dict)

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
