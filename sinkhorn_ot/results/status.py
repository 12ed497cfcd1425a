"""How a solve ended; the value of a status is the message shown to the user."""

import enum


class Status(enum.Enum):
    """How a solve ended. Ordered from best to worst."""

    OPTIMAL = "An exact plan, proved optimal by its dual potentials."
    CONVERGED = "The marginals match to within tol."
    FIXED = "Ran the n_iter sweeps asked for; read marginal_error to learn how far they went."
    STOPPED = "The callback stopped the solve before tol was reached."
    MAX_ITER = "Ran out of iterations: raise max_iter, or reg if there is one, or accept the error."
    STALLED = (
        "The error stopped falling above tol. float64, a larger reg or another method may bring it "
        "lower; if both marginals are exact and pairs are forbidden, check that a plan exists."
    )
    INFEASIBLE = "No plan exists: forbidden pairs leave some points with weight too few partners."
    NOT_FINITE = (
        "Potentials or masses left the range of floating-point numbers: check the scale of the "
        "cost against reg, and against unbalanced if it is given."
    )


class ConvergenceWarning(UserWarning):
    """A solve ended above its tolerance; the message says how far and why."""


class ConvergenceError(RuntimeError):
    """A solve ended above its tolerance and was told to raise; `.result` holds what it reached."""

    def __init__(self, message: str, result: object) -> None:
        super().__init__(message)
        self.result = result
