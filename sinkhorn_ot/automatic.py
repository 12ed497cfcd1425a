"""What method="auto" chooses, from the shape of a problem and how sharp its regularisation is."""

import math

from .anneal import Anneal
from .newton import Newton
from .problem import Problem
from .sinkhorn import Sinkhorn


# Newton passes through every decade of reg: its steps are few, and each stage starts close
NEWTON = Sinkhorn(Newton(), Anneal(start=0.05))
ANDERSON = Sinkhorn()
METHODS = {"auto": None, "sinkhorn": ANDERSON, "newton": NEWTON}


def automatic(problem: Problem) -> Sinkhorn:
    """Return the solver for a problem.

    Newton's steps win where plain sweeps need many and the Hessian is small enough to factorise:
    sharp plans between at most 128 columns. A batch whose kernel is shared stays with sweeps, which
    are one matrix product for all of it.
    """
    batch, _, m = problem.shape
    sharp = (problem.bounds.high - problem.bounds.low) / float(problem.reg.min())
    exact = problem.relax == (math.inf, math.inf)
    on_cpu = problem.a.device.type == "cpu"
    if on_cpu and exact and m <= 128 and sharp > (300 if batch > 1 and problem.shared else 50):
        return NEWTON
    return ANDERSON
