"""POT's `sinkhorn` and `sinkhorn2`, whose methods have all one answer."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, TypedDict, get_args, overload

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack

from sinkhorn_ot.compat.pot.answers import How, answered, logged, potentials, scaled, two_sides
from sinkhorn_ot.compat.pot.arrays import Costs, Form, Kind, Log, Numbers, Weights, known, taken
from sinkhorn_ot.problem import checks
from sinkhorn_ot.results import Transport


# methods that start from potentials in units of the cost; others start from logs of scalings
InCost = Literal["sinkhorn_stabilized", "sinkhorn_epsilon_scaling"]
Method = Literal["sinkhorn", "sinkhorn_log", "greenkhorn", InCost]
_IN_COST, METHODS = get_args(InCost), get_args(Method)


class Taken(TypedDict, total=False):
    """Options that POT's methods have beside those of all."""

    tau: float
    print_period: int
    epsilon0: float
    numInnerItermax: int


OPTIONS = tuple(Taken.__annotations__)


@overload
def sinkhorn(
    a: Weights, b: Weights, M: Kind, reg: float, method: Method = ...,
    numItermax: int = ..., stopThr: float = ..., verbose: bool = ..., log: Literal[False] = ...,
    warn: bool = ..., warmstart: Sequence[Any] | None = ..., **kwargs: Unpack[Taken],
) -> Kind: ...  # fmt: skip
@overload
def sinkhorn(
    a: Weights, b: Weights, M: Kind, reg: float, method: Method = ...,
    numItermax: int = ..., stopThr: float = ..., verbose: bool = ..., *, log: Literal[True],
    warn: bool = ..., warmstart: Sequence[Any] | None = ..., **kwargs: Unpack[Taken],
) -> tuple[Kind, Log]: ...  # fmt: skip
def sinkhorn(  # noqa: PLR0913
    a: Weights,
    b: Weights,
    M: Numbers,
    reg: float,
    method: Method = "sinkhorn",
    numItermax: int = 1000,
    stopThr: float = 1e-09,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    warmstart: Sequence[Any] | None = None,
    **kwargs: Unpack[Taken],
) -> Numbers | tuple[Numbers, Log]:
    """POT's `ot.sinkhorn`: the entropic plan, or what plans to many targets cost.

    Args:
        a: Source weights, (n,); [] means 1/n each.
        b: Target weights, (m,), or (m, k) for k targets; [] means 1/m each.
        M: Costs, (n, m).
        reg: Regularisation in units of the cost, above zero.
        method: One of POT's names, in any case; all are answered by one solver.
        numItermax: Sweeps allowed.
        stopThr: Relative L1 error of the marginals to reach.
        verbose: Whether to show a progress bar.
        log: Whether to return a dictionary too.
        warn: Whether to warn, `ConvergenceWarning`, where stopThr was not reached.
        warmstart: Logarithms of scalings, (n,) and (m,), or for the methods "sinkhorn_stabilized"
            and "sinkhorn_epsilon_scaling" potentials: what a log calls "warmstart".
        kwargs: `tau`, `print_period`, `epsilon0`: taken, and not needed; `numInnerItermax`.

    Returns:
        The plan, (n, m), or with k targets `<P, M>` of each, (k,); with log=True beside it a
        dictionary: u, v and their logarithms log_u, log_v, (n,) and (m,) or (n, k) and (m, k),
        alpha and beta in units of the cost, err, niter, and our `Transport` as result.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: M. Cuturi, Sinkhorn distances: lightspeed computation of optimal transport, NeurIPS
    2013; R. Flamary et al., POT: Python optimal transport, JMLR 2021.
    """
    how = How(stopThr, _sweeps(method, numItermax, kwargs), verbose, warn)
    form, r, given = _found(a, b, M, reg, method, how, warmstart)
    answer = form.out(r.value_linear if r.problem.batch_shape else r.plan)
    return (answer, _written(form, r, given, method)) if log else answer


@overload
def sinkhorn2(
    a: Weights, b: Weights, M: Numbers, reg: float, method: Method = ...,
    numItermax: int = ..., stopThr: float = ..., verbose: bool = ..., log: Literal[False] = ...,
    warn: bool = ..., warmstart: Sequence[Any] | None = ..., **kwargs: Unpack[Taken],
) -> Costs: ...  # fmt: skip
@overload
def sinkhorn2(
    a: Weights, b: Weights, M: Numbers, reg: float, method: Method = ...,
    numItermax: int = ..., stopThr: float = ..., verbose: bool = ..., *, log: Literal[True],
    warn: bool = ..., warmstart: Sequence[Any] | None = ..., **kwargs: Unpack[Taken],
) -> tuple[Costs, Log]: ...  # fmt: skip
def sinkhorn2(  # noqa: PLR0913
    a: Weights,
    b: Weights,
    M: Numbers,
    reg: float,
    method: Method = "sinkhorn",
    numItermax: int = 1000,
    stopThr: float = 1e-09,
    verbose: bool = False,
    log: bool = False,
    warn: bool = False,
    warmstart: Sequence[Any] | None = None,
    **kwargs: Unpack[Taken],
) -> Costs | tuple[Costs, Log]:
    """POT's `ot.sinkhorn2`: what the entropic plan costs, `<P, M>`, without its entropy.

    Args:
        a: Source weights, (n,); [] means 1/n each.
        b: Target weights, (m,), or (m, k) for k targets; [] means 1/m each.
        M: Costs, (n, m).
        reg: Regularisation in units of the cost, above zero.
        method: One of POT's names, in any case; all are answered by one solver.
        numItermax: Sweeps allowed.
        stopThr: Relative L1 error of the marginals to reach.
        verbose: Whether to show a progress bar.
        log: Whether to return a dictionary too, as `sinkhorn` does.
        warn: Whether to warn, `ConvergenceWarning`, where stopThr was not reached.
        warmstart: As `sinkhorn` takes it.
        kwargs: As `sinkhorn` takes them.

    Returns:
        The cost, (), or (k,) for k targets; with log=True a dictionary beside it.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: as for `sinkhorn`.
    """
    how = How(stopThr, _sweeps(method, numItermax, kwargs), verbose, warn)
    form, r, given = _found(a, b, M, reg, method, how, warmstart)
    answer = form.out(r.value_linear)
    return (answer, _written(form, r, given, method)) if log else answer


sinkhorn_log = partial(sinkhorn, method="sinkhorn_log")
sinkhorn_stabilized = partial(sinkhorn, method="sinkhorn_stabilized")
sinkhorn_epsilon_scaling = partial(sinkhorn, method="sinkhorn_epsilon_scaling")
sinkhorn_knopp = partial(sinkhorn, method="sinkhorn")
greenkhorn = partial(sinkhorn, method="greenkhorn")


def _sweeps(method: str, most: int, options: Taken) -> int:
    """Return how many sweeps a method may take; require that there are such a method and options.

    Scaling of epsilon counts its rounds, and the iterations of each.
    """
    known(options, OPTIONS)
    checks.one_of("method", method.lower() if isinstance(method, str) else method, METHODS)
    rounds = method.lower() == "sinkhorn_epsilon_scaling"
    return most * options.get("numInnerItermax", 100) if rounds else most


def _found(  # noqa: PLR0913
    a: Any, b: Any, M: Any, reg: Any, method: str, how: How, warmstart: Any
) -> tuple[Form, Transport, tuple[Any, Any, Any]]:
    """Return how to answer, the answer, and weights and reg; k targets are a batch of k."""
    form, M, (a, b) = taken(M, a, b)
    if b is not None and b.ndim == 2:
        b = b.T
    init = None if warmstart is None else _start(a, b, M.shape, reg, method, warmstart)
    return form, answered(M, a, b, reg, how, init=init), (a, b, reg)


def _start(  # noqa: PLR0913
    a: Any, b: Any, shape: tuple[int, int], reg: Any, method: str, warmstart: Any
) -> tuple[Tensor, Tensor]:
    """Return the potentials that a start of theirs means."""
    reg = float(reg)
    many = np.ndim(b) == 2 and isinstance(warmstart, (list, tuple))
    if many and (len(warmstart) != 2 or isinstance(warmstart[0], (list, tuple))):
        # the logarithmic method takes a pair for each target
        if len(warmstart) != len(b):
            raise ValueError(
                f"warmstart must have a pair for each of {len(b)} targets, got {len(warmstart)}"
            )
        each = zip(b, warmstart, strict=True)
        pairs = [_start(a, one, shape, reg, method, pair) for one, pair in each]
        sides = list(zip(*pairs, strict=True))
        return torch.stack(sides[0]), torch.stack(sides[1])
    unit = 1 / reg if method.lower() in _IN_COST else 1.0
    u, v = two_sides("warmstart", warmstart, shape)
    return potentials(unit * u, a, shape[0], reg), potentials(unit * v, b, shape[1], reg)


def _written(form: Form, r: Transport, given: tuple[Any, Any, Any], method: str) -> dict[str, Any]:
    a, b, reg = given
    log_u, log_v = scaled(r, a, b, reg)
    if r.problem.batch_shape:
        log_u, log_v = log_u.mT, log_v.mT
    found = logged(form, r, log_u, log_v, reg)
    units = ("alpha", "beta") if method.lower() in _IN_COST else ("log_u", "log_v")
    return found | {"warmstart": tuple(found[name] for name in units)}
