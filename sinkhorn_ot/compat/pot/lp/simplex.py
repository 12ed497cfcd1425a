"""POT's `emd` and `emd2`: exact plans, what they cost, and potentials that prove it."""

import warnings
from collections.abc import Iterator
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.compat.pot.answers import their
from sinkhorn_ot.compat.pot.arrays import Costs, Form, Kind, Log, Numbers, Weights, float64, taken
from sinkhorn_ot.exact import solve_exact, unproved_plan
from sinkhorn_ot.problem import checks, make_plain
from sinkhorn_ot.results import Status, Transport, missed


WORDS = {"cost": "M", "max_iter": "numItermax"}
# pivots from which on a limit is none, and how far apart masses may be: theirs
_FREE, _APART = 100_000, 1.5e-6
# pairs of one problem that are looked at whole
_WHOLE = 1 << 21


@overload
def emd(
    a: Weights, b: Weights, M: Kind, numItermax: int = ..., log: Literal[False] = ...,
    center_dual: bool = ..., numThreads: object = ..., check_marginals: bool = ...,
    potentials_init: object = ...,
) -> Kind: ...  # fmt: skip
@overload
def emd(
    a: Weights, b: Weights, M: Kind, numItermax: int = ..., *, log: Literal[True],
    center_dual: bool = ..., numThreads: object = ..., check_marginals: bool = ...,
    potentials_init: object = ...,
) -> tuple[Kind, Log]: ...  # fmt: skip
def emd(  # noqa: PLR0913
    a: Weights,
    b: Weights,
    M: Numbers,
    numItermax: int = 100000,
    log: bool = False,
    center_dual: bool = True,
    numThreads: object = 1,
    check_marginals: bool = True,
    potentials_init: object = None,
) -> Numbers | tuple[Numbers, Log]:
    """POT's `ot.emd`: an exact plan, in the dtype of the weights.

    Args:
        a: Source weights, (n,); [] means 1/n each.
        b: Target weights, (m,), scaled to the mass of a; [] means 1/m each.
        M: Costs, (n, m); inf forbids a pair.
        numItermax: Pivots at most; 100000 and more set no limit.
        log: Whether to return a dictionary too. The answer is then proved, which takes longer.
        center_dual: Whether potentials share their constant such that `<a, u> = <b, v>`.
        numThreads: Taken, and not needed.
        check_marginals: Whether masses must agree, to 1.5e-6.
        potentials_init: Taken, and not needed.

    Returns:
        The plan, (n, m); with log=True beside it a dictionary of cost, u and v, (n,) and (m,),
        warning, result_code, and our `Transport` as result.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: N. Bonneel et al., Displacement interpolation using Lagrangian mass transport, 2011.
    """
    form, M, (a, b) = _read(a, b, M, check_marginals)
    if not log:
        P = _plainly(M, a, b, numItermax)
        if P is not None:
            return form.out(torch.from_numpy(P))
    r = _proved(M, a, b, numItermax)
    if not log:
        return form.out(r.plan)
    return form.out(r.plan), _written(form, r, center_dual)


@overload
def emd2(
    a: Weights, b: Weights, M: Numbers, processes: object = ..., numItermax: int = ...,
    log: Literal[False] = ..., return_matrix: Literal[False] = ..., center_dual: bool = ...,
    numThreads: object = ..., check_marginals: bool = ..., potentials_init: object = ...,
) -> Costs: ...  # fmt: skip
@overload
def emd2(
    a: Weights, b: Weights, M: Numbers, processes: object = ..., numItermax: int = ..., *,
    log: Literal[True], return_matrix: bool = ..., center_dual: bool = ...,
    numThreads: object = ..., check_marginals: bool = ..., potentials_init: object = ...,
) -> list[Any]: ...  # fmt: skip
@overload
def emd2(
    a: Weights, b: Weights, M: Numbers, processes: object = ..., numItermax: int = ...,
    log: bool = ..., *, return_matrix: Literal[True], center_dual: bool = ...,
    numThreads: object = ..., check_marginals: bool = ..., potentials_init: object = ...,
) -> list[Any]: ...  # fmt: skip
def emd2(  # noqa: PLR0913
    a: Weights,
    b: Weights,
    M: Numbers,
    processes: object = 1,
    numItermax: int = 100000,
    log: bool = False,
    return_matrix: bool = False,
    center_dual: bool = True,
    numThreads: object = 1,
    check_marginals: bool = True,
    potentials_init: object = None,
) -> Costs | list[Any]:
    """POT's `ot.emd2`: what exact plans cost.

    Args:
        a: Source weights, (n,); [] means 1/n each.
        b: Target weights, (m,), or (m, k) for k targets, scaled to the mass of a; [] means 1/m.
        M: Costs, (n, m); inf forbids a pair.
        processes: Taken, and not needed.
        numItermax: Pivots at most; 100000 and more set no limit.
        log: Whether to return a dictionary too. The answer is then proved, which takes longer.
        return_matrix: Whether to return a dictionary with the plan, as G.
        center_dual: Whether potentials share their constant such that `<a, u> = <b, v>`.
        numThreads: Taken, and not needed.
        check_marginals: Whether masses must agree, to 1.5e-6.
        potentials_init: Taken, and not needed.

    Returns:
        The cost, with derivatives by tensors that require grad; with log=True or
        return_matrix=True [cost, dictionary], as `emd` writes it. Of k targets a list of k.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: as for `emd`.
    """
    form, M, (w, targets) = _read(a, b, M, check_marginals)
    written, found = log or return_matrix, []
    alone = targets is None or targets.ndim == 1
    for one in [targets] if alone else _columns(targets):
        P = None if written else _plainly(M, w, one, numItermax)
        if P is not None:
            found.append(form.out(torch.from_numpy(np.array(np.vdot(P, M)))))
            continue
        r = _proved(M, w, one, numItermax)
        cost = form.out(r.value_linear)
        more = _written(form, r, center_dual) if written else {}
        if return_matrix:
            more["G"] = form.out(r.plan)
        found.append([cost, {**more, "cost": cost}] if written else cost)
    return found[0] if alone else found


def _read(a: Any, b: Any, M: Any, check: bool) -> tuple[Form, Any, list[Any]]:
    """Return how to answer, which is as the weights are, and all in float64."""
    form, M, given = taken(M, a, b)
    weights = [w for w in given if w is not None]
    if weights:
        dtype = weights[0].dtype
        form = Form(dtype, form.tensors)
        if dtype.kind in "iub" if isinstance(dtype, np.dtype) else not dtype.is_floating_point:
            warnings.warn(
                f"a holds whole numbers, {dtype}, and so does the plan, as in POT: give weights in "
                "floating point",
                UserWarning,
                stacklevel=3,
            )
    M, a, b = (float64(x) for x in (M, *given))
    return form, M, [a, evened(a, b, check)]


def evened(a: Any, b: Any, check: bool) -> Any:
    """Return the weights b, (m,) or (m, k), with the mass of a."""
    if a is None and b is None:
        return None
    left = 1.0 if a is None else a.sum()
    right = 1.0 if b is None else b.sum(0)
    apart = abs(left - right)
    apart = apart.max() if isinstance(apart, (Tensor, np.ndarray)) else apart
    if check and not apart < _APART:
        for name, w in (("a", a), ("b", b)):
            if w is not None:
                t = torch.as_tensor(w).detach()
                checks.weights(name, t.mT if t.ndim == 2 else t)
        raise ValueError(
            f"a and b must have the same total mass, got masses {float(apart):.3g} apart"
        )
    return b if b is None or apart == 0 else b * (left / right)


def _columns(b: Any) -> Iterator[Any]:
    for k in range(b.shape[1]):
        yield b[:, k] if isinstance(b, Tensor) else np.ascontiguousarray(b[:, k])


def _plainly(M: Any, a: Any, b: Any, limit: int) -> Any:
    """Return the plan of one plain problem, without its proof; None if that is not enough."""
    if isinstance(M, Tensor) or limit < _FREE:
        return None
    p = make_plain(M, a, b, _WHOLE)
    if p is not None:
        return unproved_plan(p)
    # points without weight take no part
    if a is None or b is None or a.shape + b.shape != M.shape:
        return None
    at = np.ix_(np.flatnonzero(a), np.flatnonzero(b))
    if 0 in (few := M[at]).shape or few.shape == M.shape:
        return None
    p = make_plain(few, a[a != 0], b[b != 0], _WHOLE)
    found = None if p is None else unproved_plan(p)
    if found is None:
        return None
    P = np.zeros(M.shape)
    P[at] = found
    return P


def _proved(M: Any, a: Any, b: Any, limit: int) -> Transport:
    checks.count("numItermax", limit)
    with their(WORDS):
        if limit >= _FREE:
            return solve_exact(M, a, b)
        r = solve_exact(M, a, b, max_iter=limit, on_fail="ignore")
    if r.status is not Status.OPTIMAL:
        missed(f"numItermax was reached before the plan was optimal. {r.message}", r, "warn")
    return r


def _written(form: Form, r: Transport, centred: bool) -> dict[str, Any]:
    optimal = r.status is Status.OPTIMAL
    f, g = r.f, r.g
    if centred:
        a, b = r.problem.a[0], r.problem.b[0]
        c = ((b @ g) - (a @ f)) / (a.sum() + b.sum())
        f, g = f + c, g - c
    return {
        "cost": form.out(r.value_linear),
        "u": form.out(f),
        "v": form.out(g),
        "warning": None if optimal else r.message,
        "result_code": 1 if optimal else 3 if r.status is Status.MAX_ITER else 0,
        "result": r,
    }
