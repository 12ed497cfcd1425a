"""What is known afterwards: how it ended, the plan, its values, its bounds."""

from .certificate import (
    Certificate,
    below,
    dual_value,
    feasible_duals,
    transform_columns,
    transform_rows,
)
from .compiler import uncompiled
from .coupling import Coupling, Entropic, Stored, marginal_error, masses, relative
from .last_look import judged
from .rounding import feasible
from .scaled import Scaled
from .solution import Solution
from .status import ConvergenceError, ConvergenceWarning, Status, Stranded
from .transport import Transport


__all__ = [
    "Certificate",
    "ConvergenceError",
    "ConvergenceWarning",
    "Coupling",
    "Entropic",
    "Scaled",
    "Solution",
    "Status",
    "Stored",
    "Stranded",
    "Transport",
    "below",
    "dual_value",
    "feasible",
    "feasible_duals",
    "judged",
    "marginal_error",
    "masses",
    "relative",
    "transform_columns",
    "transform_rows",
    "uncompiled",
]
