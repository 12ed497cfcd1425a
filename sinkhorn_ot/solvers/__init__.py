"""How potentials move: one loop, its steps and accelerations, and what may be done before it."""

from .acceleration import Acceleration, Anderson, Iterate, Nesterov, Plain, Steps
from .anneal import Anneal
from .automatic import METHODS, NEWTON, SWEEPS, SWITCH, automatic
from .newton import Newton, Switch
from .presolve import support
from .progress import watch
from .sinkhorn import Callback, Progress, Sinkhorn
from .small import solve_small
from .steps import fixed


__all__ = [
    "Acceleration",
    "Anderson",
    "Anneal",
    "Callback",
    "Iterate",
    "METHODS",
    "NEWTON",
    "Nesterov",
    "Newton",
    "Plain",
    "Progress",
    "SWEEPS",
    "SWITCH",
    "Sinkhorn",
    "Steps",
    "Switch",
    "automatic",
    "fixed",
    "solve_small",
    "support",
    "watch",
]
