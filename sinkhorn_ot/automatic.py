"""What method="auto" chooses, from the shape of a problem and how sharp its regularisation is."""

import math

from .anneal import Anneal
from .newton import Newton, Switch
from .problem import Problem
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
    if problem.relax != (math.inf, math.inf) or problem.a.device.type != "cpu":
        return SWEEPS
    small = m <= _DIRECT.direct and n * m * m <= _HESSIAN
    if small and sharp > (300 if batch > 1 and problem.shared else 50):
        return NEWTON
    return SWITCH
