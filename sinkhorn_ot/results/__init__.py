"""What is known afterwards: how it ended, the plan, its values, its bounds."""

from .certificate import (
    Certificate,
    below,
    dual_value,
    feasible_duals,
    transform_columns,
    transform_rows,
)
from .coupling import Coupling, Entropic, Stored, levelled, marginal_error, masses, plan, relative
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
from .scaled import Scaled
from .solution import Solution
from .sparse import Sparse
from .status import (
    ON_FAIL,
    ConvergenceError,
    ConvergenceWarning,
    OnFail,
    Status,
    Stranded,
    missed,
    told,
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
    "ON_FAIL",
    "OnFail",
    "Parts",
    "Scaled",
    "Solution",
    "Sparse",
    "Status",
    "Stored",
    "Stranded",
    "Transport",
    "attached",
    "below",
    "dual_value",
    "feasible",
    "feasible_duals",
    "final",
    "judged",
    "levelled",
    "marginal_error",
    "masses",
    "missed",
    "plan",
    "relative",
    "told",
    "transform_columns",
    "transform_rows",
    "transformable",
    "uncompiled",
    "waiting",
]
