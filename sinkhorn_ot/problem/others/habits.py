"""Names that other packages give to arguments and calls, and what they are called here."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any


# what others call an argument: names here, the first that a call has is meant, and what to know
_ARGUMENTS: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(("eps", "epsilon"), (("reg", "lamb", "alpha"), "")),
    **dict.fromkeys(("lambd", "lamda"), (("lamb", "reg"), "a lambda is 1 / reg")),
    "blur": (("reg",), "reg = blur ** p, where GeomLoss's cost for p = 2 is half the square"),
    "reach": (("unbalanced",), "rho = reach ** p"),
    "reg_m": (("unbalanced",), ""),
    "rho": (("unbalanced",), ""),
    **dict.fromkeys(("tau_a", "tau_b"), (("unbalanced",), "rho = reg * tau / (1 - tau)")),
    "m": (("mass",), ""),
    **dict.fromkeys(("M", "C"), (("cost",), "")),
    "X_a": (("x",), ""),
    "X_b": (("y",), ""),
    "p": (("metric",), '"sqeuclidean", or power= of a distance'),
    **dict.fromkeys(
        ("numItermax", "max_iterations", "n_iters", "num_iters", "maxiter", "niter"),
        (("max_iter", "n_iter"), ""),
    ),
    **dict.fromkeys(("stopThr", "stop_thr", "threshold", "thresh", "tolerance"), (("tol",), "")),
    "verbose": (("progress",), ""),
    "warmstart": (("init",), "an earlier result, or (f, g)"),
    "warn": (("on_fail",), '"warn", "raise" or "ignore"'),
}
_LOG = "what a log would hold are properties of the result: f, g, marginal_error, n_iter, status"
# what others call what is here, and which module of `compat` has it by their name
CALLS: dict[str, tuple[str, str]] = {
    "sinkhorn": ("solve(cost, a, b, reg).plan", "pot"),
    "sinkhorn2": ("solve(cost, a, b, reg).value_linear", "pot"),
    "sinkhorn_unbalanced": ("solve(cost, a, b, reg, unbalanced=rho).plan", "pot"),
    "emd": ("solve_exact(cost, a, b).plan", "pot"),
    "emd2": ("solve_exact(cost, a, b).value", "pot"),
    "emd2_1d": ("solve_1d(x, y, a, b).value", "pot"),
    "wasserstein_1d": ("solve_1d(x, y, a, b).value", "pot"),
    "sliced_wasserstein_distance": ("sliced_distance(x, y)", "pot"),
    "dist": ('PointCloud(x, y, metric="sqeuclidean")', "pot"),
    "SamplesLoss": ("sinkhorn_divergence(x, y, reg=blur**2)", "geomloss"),
    "LinearProblem": ("solve(cost, a, b, reg)", ""),
}


class Names:
    """The names of a call's arguments, which says of others what they are called there."""

    def __init__(self, call: Callable[..., Any]) -> None:
        parameters = inspect.signature(call).parameters.values()
        self._call, self._known = call.__name__, frozenset(p.name for p in parameters)
        self._any = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def check(self, given: Mapping[str, Any]) -> None:
        """Require what is given by name to be an argument of the call.

        Raises:
            TypeError: As Python does, with the name that is meant.
        """
        if self._any or self._known.issuperset(given):
            return
        name = next(name for name in given if name not in self._known)
        raise TypeError(f"{self._call}() has no argument {name!r}{_meant(name, self._known)}")


def _meant(name: str, known: frozenset[str]) -> str:
    """Return what an error goes on to say of an argument that a call does not have."""
    if name == "log":
        return f": {_LOG}"
    names, why = _ARGUMENTS.get(name, ((), ""))
    near = [here for here in names if here in known]
    near = near or difflib.get_close_matches(name, known, 1)
    if not near:
        return ""
    return f": write {near[0]}=" + (f", {why}" if why and near[0] == names[0] else "")
