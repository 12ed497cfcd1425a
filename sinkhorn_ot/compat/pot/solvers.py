"""POT's `solve`: exact and entropic plans, with exact or relaxed marginals."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sinkhorn_ot.exact import solve_exact
from sinkhorn_ot.problem import checks
from sinkhorn_ot.results import Transport

from .answers import How, answered, potentials, scaled, their, two_sides
from .arrays import Form, Kind, Penalties, Weights, float64, taken
from .result import OTResult
from .unbalanced import PENALTIES, Relaxed, penalties


Method = Literal["sinkhorn", "sinkhorn_log", "mm", "lbfgsb"]
RegType = Literal["KL", "kl", "entropy"]
PenaltyType = Literal["KL", "L2", "TV", "kl", "l2", "tv"]
Grad = Literal["autodiff", "envelope", "last_step", "detach"]
WORDS = {"cost": "M", "tol": "tol", "max_iter": "max_iter"}


def solve(  # noqa: PLR0913
    M: Kind,
    a: Weights = None,
    b: Weights = None,
    reg: float | None = None,
    c: Kind | None = None,
    reg_type: RegType = "KL",
    unbalanced: Penalties | None = None,
    unbalanced_type: PenaltyType = "KL",
    method: Method | None = None,
    n_threads: object = 1,
    max_iter: int | None = None,
    plan_init: object = None,
    potentials_init: Sequence[Any] | None = None,
    tol: float | None = None,
    verbose: bool = False,
    grad: Grad = "autodiff",
) -> OTResult[Kind]:
    """POT's `ot.solve`: the plan, its values and its potentials.

    Args:
        M: Costs, (n, m).
        a: Source weights, (n,); None means 1/n each.
        b: Target weights, (m,); None means 1/m each.
        reg: Regularisation in units of the cost; None or 0 for exact transport.
        c: Reference of the regularisation beside `unbalanced`, (n, m); None is a b^T.
        reg_type: "KL" or "entropy", which count values in two ways.
        unbalanced: Penalty on the marginals, one number or a pair; None is exact, and so is inf.
        unbalanced_type: "KL" or "L2", beside a reg, or "TV"; all but KL without derivatives beside
            a reg.
        method: One of POT's names; all are answered by one solver.
        n_threads: Taken, and not needed.
        max_iter: Sweeps allowed, or pivots; None means 1000, or no limit.
        plan_init: Taken, and not needed.
        potentials_init: Logarithms of scalings to start from, (n,) and (m,).
        tol: Relative L1 error of the marginals to reach; None means 1e-9.
        verbose: Whether to show a progress bar.
        grad: "autodiff" and "last_step" give derivatives of the solution to all that is told,
            "envelope" to values alone, "detach" to nothing.

    Returns:
        An `OTResult`, with our `Transport` as `transport`.

    Raises:
        ValueError: If an argument breaks a rule, or asks for what only POT has.

    Source: R. Flamary et al., POT: Python optimal transport, JMLR 2021.
    """
    if method is not None:
        checks.one_of("method", method, get_args(Method))
    checks.one_of("grad", grad, get_args(Grad))
    form, C, (left, right, reference) = taken(M, a, b, c)
    if reg is None or (not isinstance(reg, Tensor) and reg == 0):
        relax = None if unbalanced is None else _priced(unbalanced, unbalanced_type)
        return _exact(form, C, left, right, relax, max_iter)
    kind = reg_kind(reg_type)
    limit = 1000 if max_iter is None else max_iter
    how = How(1e-9 if tol is None else tol, limit, verbose)
    if grad == "detach" or (grad == "envelope" and unbalanced is not None):
        given = (C, left, right, reference)
        C, left, right, reference = (t.detach() if isinstance(t, Tensor) else t for t in given)
    if unbalanced is not None:
        penalty = checks.one_of("unbalanced_type", _lower(unbalanced_type), tuple(PENALTIES))
        relaxed = Relaxed.posed(
            form, C, left, right, reg, penalties(unbalanced, penalty), kind, reference
        )
        return relaxed.result(relaxed.solved(how, potentials_init, "potentials_init"))
    if c is not None:
        raise ValueError(
            "c must be None beside exact marginals, where POT does not look at it: pass "
            "M - reg * log(c) as the cost instead"
        )
    init = None
    if potentials_init is not None:
        u, v = two_sides("potentials_init", potentials_init, C.shape)
        sides = zip((u, v), (left, right), C.shape, strict=True)
        init = tuple(potentials(t, w, size, float(reg)) for t, w, size in sides)
    r = answered(C, left, right, reg, how, WORDS, init=init)
    return entropic(form, r, (left, right, reg), kind, value_only=grad == "envelope")


def reg_kind(reg_type: Any) -> str:
    """Return "kl" or "entropy"; refuse what is another problem."""
    kind = _lower(reg_type)
    if kind == "l2" or isinstance(reg_type, tuple):
        raise ValueError(
            f"reg_type must be 'KL' or 'entropy', got {reg_type!r:.40}: other regularisers are in "
            "POT itself"
        )
    return checks.one_of("reg_type", kind, ("kl", "entropy"))


def entropic(
    form: Form, r: Transport, given: tuple[Any, Any, Any], kind: str, value_only: bool = False
) -> OTResult[Any]:
    """Return a result of exact marginals as POT tells it, for one problem or a batch."""
    a, b, reg = given
    constant, (left, right) = r, (a, b)
    if value_only:
        constant = r.detach()
        left, right = (w.detach() if isinstance(w, Tensor) else w for w in (a, b))

    def value() -> Tensor:
        # POT's divergence has no masses
        mass = 1.0 if a is None else torch.as_tensor(a, device=r.problem.a.device).sum(-1)
        found: Tensor = r.value - reg * (mass * mass - mass)
        return found + reg * _entropies(r, a, b) if kind == "entropy" else found

    parts = {
        "value": value,
        "value_linear": lambda: r.value_linear,
        "plan": lambda: constant.plan,
        "potentials": lambda: scaled(constant, left, right, reg),
    }
    return OTResult(form, parts, r)


def _entropies(r: Transport, a: Any, b: Any) -> Tensor | float:
    """Return sum a log a + sum b log b, (...)."""
    total: Tensor | float = 0.0
    for w, size in zip((a, b), r.problem.shape[1:], strict=True):
        if w is None:
            total = total - math.log(size)
        else:
            t = torch.as_tensor(w, dtype=torch.float64, device=r.problem.a.device)
            total = total + torch.special.xlogy(t, t).sum(-1)
    return total


def _priced(unbalanced: Any, kind: Any) -> tuple[Any, Any] | None:
    """Return penalties of which a linear program is left; None where both sides are exact."""
    relax = penalties(unbalanced, checks.one_of("unbalanced_type", _lower(kind), tuple(PENALTIES)))
    if relax == (None, None):
        return None
    if _lower(kind) != "tv":
        raise ValueError(
            f"unbalanced_type must be 'TV' without reg, got {kind!r}: give a reg, which may be "
            "small, or use POT itself"
        )
    return relax


def _exact(
    form: Form, M: Any, a: Any, b: Any, unbalanced: Any, max_iter: int | None
) -> OTResult[Any]:
    limit = None if max_iter is None or max_iter >= 100_000 else max_iter
    with their(WORDS):
        M, a, b = (float64(t) for t in (M, a, b))
        r = solve_exact(M, a, b, unbalanced=unbalanced, max_iter=limit)
    return exactly(form, r)


def exactly(form: Form, r: Transport) -> OTResult[Any]:
    """Return an exact result as POT tells it, for one problem or a batch."""
    parts = {
        "value": lambda: r.value,
        "value_linear": lambda: r.value_linear,
        "plan": lambda: r.plan,
        "potentials": lambda: (r.f, r.g),
    }
    return OTResult(form, parts, r)


def _lower(name: Any) -> Any:
    return name.lower() if isinstance(name, str) else name
