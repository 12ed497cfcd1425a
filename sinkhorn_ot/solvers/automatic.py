"""What method="auto" chooses, from the shape of a problem and how sharp its regularisation is.

Small problems on a CPU do not come here unless `_small` has given them up.
"""

from sinkhorn_ot.problem import Problem

from .anneal import Anneal
from .newton import Newton, Switch
from .sinkhorn import Sinkhorn


# a Newton step is quick only from nearby: every stage ends close to its solution
_DIRECT = Newton()
NEWTON = Sinkhorn(_DIRECT, Anneal(start=0.05, tol=1e-2, max_iter=100))
SWITCH = Sinkhorn(Switch(), Anneal(start=0.01, tol=1e-3, max_iter=100))
SWEEPS = Sinkhorn()
METHODS = {"auto": None, "sinkhorn": SWEEPS, "newton": NEWTON}

# multiply-adds of a Hessian up to which one costs no more than the sweeps it saves
_HESSIAN = 3e7


def automatic(problem: Problem) -> Sinkhorn:
    """Return the solver for a problem.

    Newton's steps win from the start where plain sweeps need many and a Hessian costs no more than
    a few of them: sharp plans of small problems. A batch whose kernel is shared stays with sweeps,
    which are one matrix product for all of it. Elsewhere sweeps are accelerated until they crawl.
    """
    batch, n, m = problem.shape
    sharp = (problem.bounds.high - problem.bounds.low) / float(problem.reg.min())
    if not problem.exact or problem.a.device.type != "cpu":
        return SWEEPS
    if m <= _DIRECT.direct and n * m * m <= _HESSIAN and sharp > _sharp_enough(problem):
        return NEWTON
    return SWITCH


def _sharp_enough(problem: Problem) -> float:
    """Return the spread of the cost over reg from which Newton's steps win."""
    batch, n, m = problem.shape
    if batch > 1 and problem.shared:
        return 300
    return 50 if n * m * m <= _HESSIAN / 8 else 500
