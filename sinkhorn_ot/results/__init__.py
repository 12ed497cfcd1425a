"""What is known afterwards: how it ended, the plan, its values, its bounds."""

from .base import Result, Sketch, from_state_dict, of_matrix, of_plan, picked, plot
from .certificate import (
    Certificate,
    below,
    dual_value,
    feasible_duals,
    transform_columns,
    transform_rows,
)
from .coupling import (
    Coupling,
    Entropic,
    Scaled,
    Sparse,
    Stored,
    levelled,
    marginal_error,
    masses,
    plan,
    relative,
)
from .graph import (
    Copied,
    Derivatives,
    Leaves,
    Parts,
    attached,
    final,
    transformable,
    uncompiled,
    waiting,
)
from .last_look import judged
from .rounding import feasible
from .solution import Solution
from .status import (
    ConvergenceError,
    ConvergenceWarning,
    Status,
    Stranded,
    after,
    in_words,
    told,
    worst,
)
from .transport import Transport


__all__ = [
    "Certificate",
    "ConvergenceError",
    "ConvergenceWarning",
    "Copied",
    "Coupling",
    "Derivatives",
    "Entropic",
    "Leaves",
    "Parts",
    "Result",
    "Scaled",
    "Sketch",
    "Solution",
    "Sparse",
    "Status",
    "Stored",
    "Stranded",
    "Transport",
    "after",
    "attached",
    "below",
    "dual_value",
    "feasible",
    "feasible_duals",
    "final",
    "from_state_dict",
    "in_words",
    "judged",
    "levelled",
    "marginal_error",
    "masses",
    "of_matrix",
    "of_plan",
    "picked",
    "plan",
    "plot",
    "relative",
    "told",
    "transform_columns",
    "transform_rows",
    "transformable",
    "uncompiled",
    "waiting",
    "worst",
]
