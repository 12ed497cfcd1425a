"""What method="auto" chooses, from the shape of a problem and how sharp its regularisation is."""

import math

from .anneal import Anneal
from .newton import Newton, Switch
from .problem import Problem
from .sinkhorn import Sinkhorn


# Newton passes through every decade of reg: its steps are few, and each stage starts close
NEWTON = Sinkhorn(Newton(), Anneal(start=0.05))
SWITCH = Sinkhorn(Switch())
SWEEPS = Sinkhorn()
METHODS = {"auto": None, "sinkhorn": SWEEPS, "newton": NEWTON}


def automatic(problem: Problem) -> Sinkhorn:
    """Return the solver for a problem.

    Newton's steps win where plain sweeps need many and a Hessian costs no more than a few of them:
    sharp plans with at most 256 columns. A batch whose kernel is shared stays with sweeps, which
    are one matrix product for all of it. Elsewhere sweeps are accelerated until they crawl.
    """
    batch, _, m = problem.shape
    sharp = (problem.bounds.high - problem.bounds.low) / float(problem.reg.min())
    if problem.relax != (math.inf, math.inf) or problem.a.device.type != "cpu":
        return SWEEPS
    if m <= 256 and sharp > (300 if batch > 1 and problem.shared else 50):
        return NEWTON
    return SWITCH
