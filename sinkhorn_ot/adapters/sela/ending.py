"""How a solve for labels ended, and what is said where it fell short of its tolerance."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_ot.problem import shown
from sinkhorn_ot.results import Status, in_words, worst


# whoever stopped a solve knows
_GOOD = (Status.CONVERGED, Status.STOPPED)
# what happened, and what helps: `limits` is what a call lets its users raise, `softer` what makes
# plans less sharp
_SAID = {
    Status.CONVERGED: ("the shares are within tol", ""),
    Status.STOPPED: ("the callback stopped it", ""),
    Status.MAX_ITER: ("ran out of iterations", ": {limits}{softer}"),
    Status.NOT_FINITE: ("potentials left the range of numbers", ": {softer}"),
}
_STALLED = (
    "the error stopped falling above tol",
    ": {softer}, or pass float64; where labels are forbidden, check that their shares can be had",
)


@shown
@dataclass(frozen=True, eq=False)
class Ending:
    """How the problems of a batch ended.

    Attributes:
        statuses: One for each problem.
        error: Relative L1 distance of the shares from those asked for, (...), as many.
        n_iter: Sweeps over all data, (...).
    """

    statuses: list[Status]
    error: Tensor
    n_iter: Tensor

    @property
    def good(self) -> bool:
        """Whether nobody has to be warned of it."""
        return all(status in _GOOD for status in self.statuses)

    @property
    def status(self) -> Status:
        """The worst of them."""
        return worst(self.statuses)

    def said(self, call: str, softer: str, limits: str = "") -> str:
        """Return a sentence on how it ended, of the worst problem.

        Args:
            call: Who says it.
            softer: What makes the plan less sharp, as "lower lamb".
            limits: What its caller may raise, as "raise max_iter, or ".
        """
        if not self.statuses:
            return in_words([])
        bad = [k for k, status in enumerate(self.statuses) if status is self.status]
        error, n_iter = self.error.reshape(-1), self.n_iter.reshape(-1)
        furthest = max(bad, key=lambda k: float(error[k]))
        many = len(self.statuses)
        which = "" if many == 1 else f"{len(bad)} of {many} problems: "
        why, what = _SAID.get(self.status, _STALLED)
        return (
            f"{call}: {which}{why}, with a marginal_error of {float(error[furthest]):.3g} after "
            f"{int(n_iter[furthest])} iterations{what.format(limits=limits, softer=softer)}"
        )


def joined(endings: Sequence[Ending]) -> Ending:
    """Return how the problems of several calls ended, as those of one."""
    statuses = [status for one in endings for status in one.statuses]
    error, n_iter = (
        torch.cat([getattr(one, name).reshape(-1) for one in endings])
        for name in ("error", "n_iter")
    )
    return Ending(statuses, error, n_iter)
