"""How potentials move: one loop, its steps and accelerations, and what may be done before it."""

from .acceleration import Acceleration, Anderson, Iterate, Nesterov, Plain, Steps
from .automatic import METHODS, NEWTON, SWEEPS, SWITCH, Limits, MethodName, run, suitable
from .newton import (
    JOINED,
    Newton,
    Switch,
    by_diagonal,
    conjugate_gradients,
    factorised,
    solve_laplacian,
)
from .presolve import pose
from .progress import Callback, Progress, passing, watch
from .sinkhorn import Anneal, Sinkhorn
from .state import Keeper, Memory, taken, told
from .steps import fixed, parted


__all__ = [
    "Acceleration",
    "Anderson",
    "Anneal",
    "Callback",
    "Iterate",
    "JOINED",
    "Keeper",
    "Limits",
    "METHODS",
    "Memory",
    "MethodName",
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
    "by_diagonal",
    "conjugate_gradients",
    "factorised",
    "fixed",
    "parted",
    "passing",
    "pose",
    "run",
    "solve_laplacian",
    "suitable",
    "taken",
    "told",
    "watch",
]
