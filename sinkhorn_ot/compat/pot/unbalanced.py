"""POT's `sinkhorn_unbalanced`: entropic plans whose marginals are penalised."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict, get_args, overload

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack

from sinkhorn_ot.problem import L2, TV, Penalty, checks, shown
from sinkhorn_ot.results import Transport

from .answers import WORDS, How, absent, answered, logged, references, two_sides
from .arrays import Costs, Form, Kind, Log, Numbers, Penalties, Weights, known, taken
from .result import OTResult


Method = Literal[
    "sinkhorn",
    "sinkhorn_stabilized",
    "sinkhorn_translation_invariant",
    "sinkhorn_reg_scaling",
]
RegType = Literal["kl", "KL", "entropy"]
Returned = Literal["linear", "total"]


class Taken(TypedDict, total=False):
    """What POT's methods take beside."""

    tau: float
    translation_invariant: bool


@overload
def sinkhorn_unbalanced(
    a: Weights, b: Weights, M: Kind, reg: float, reg_m: Penalties,
    method: Method = ..., reg_type: RegType = ..., c: Kind | None = ...,
    warmstart: Sequence[Any] | None = ..., numItermax: int = ..., stopThr: float = ...,
    verbose: bool = ..., log: Literal[False] = ..., **kwargs: Unpack[Taken],
) -> Kind: ...  # fmt: skip
@overload
def sinkhorn_unbalanced(
    a: Weights, b: Weights, M: Kind, reg: float, reg_m: Penalties,
    method: Method = ..., reg_type: RegType = ..., c: Kind | None = ...,
    warmstart: Sequence[Any] | None = ..., numItermax: int = ..., stopThr: float = ...,
    verbose: bool = ..., *, log: Literal[True], **kwargs: Unpack[Taken],
) -> tuple[Kind, Log]: ...  # fmt: skip
def sinkhorn_unbalanced(  # noqa: PLR0913
    a: Weights,
    b: Weights,
    M: Numbers,
    reg: float,
    reg_m: Penalties,
    method: Method = "sinkhorn",
    reg_type: RegType = "kl",
    c: Numbers | None = None,
    warmstart: Sequence[Any] | None = None,
    numItermax: int = 1000,
    stopThr: float = 1e-06,
    verbose: bool = False,
    log: bool = False,
    **kwargs: Unpack[Taken],
) -> Numbers | tuple[Numbers, Log]:
    """POT's `ot.sinkhorn_unbalanced`: the entropic plan with penalised marginals.

    Args:
        a: Source weights, (n,); [] means 1/n each.
        b: Target weights, (m,), or (m, k) for k targets; [] means 1/m each.
        M: Costs, (n, m).
        reg: Regularisation in units of the cost, above zero.
        reg_m: KL penalty on the marginals, one number or a pair; inf is an exact one.
        method: One of POT's names, in any case; all are answered by one solver.
        reg_type: "kl", against c, or "entropy", against ones.
        c: Reference of the regularisation, (n, m); None is a b^T.
        warmstart: Logarithms of scalings, (n,) and (m,).
        numItermax: Sweeps allowed.
        stopThr: Relative L1 error of what the marginals answer to reach.
        verbose: Whether to show a progress bar.
        log: Whether to return a dictionary too.
        kwargs: `tau`: taken, and not needed.

    Returns:
        The plan, (n, m), or with k targets `<P, M>` of each, (k,); with log=True beside it a
        dictionary: logu and logv, cost, total_cost, err, niter, and our `Transport` as result.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: L. Chizat, G. Peyre, B. Schmitzer, F.-X. Vialard, Scaling algorithms for unbalanced
    transport problems, 2016.
    """
    how = How(stopThr, numItermax, verbose)
    p, r = _found(a, b, M, reg, reg_m, method, reg_type, c, warmstart, how, kwargs)
    answer = p.form.out(p.linear(r) if r.problem.batch_shape else r.plan)
    return (answer, p.written(r)) if log else answer


@overload
def sinkhorn_unbalanced2(
    a: Weights, b: Weights, M: Numbers, reg: float, reg_m: Penalties,
    method: Method = ..., reg_type: RegType = ..., c: Numbers | None = ...,
    warmstart: Sequence[Any] | None = ..., returnCost: Returned = ..., numItermax: int = ...,
    stopThr: float = ..., verbose: bool = ..., log: Literal[False] = ..., **kwargs: Unpack[Taken],
) -> Costs: ...  # fmt: skip
@overload
def sinkhorn_unbalanced2(
    a: Weights, b: Weights, M: Numbers, reg: float, reg_m: Penalties,
    method: Method = ..., reg_type: RegType = ..., c: Numbers | None = ...,
    warmstart: Sequence[Any] | None = ..., returnCost: Returned = ..., numItermax: int = ...,
    stopThr: float = ..., verbose: bool = ..., *, log: Literal[True], **kwargs: Unpack[Taken],
) -> tuple[Costs, Log]: ...  # fmt: skip
def sinkhorn_unbalanced2(  # noqa: PLR0913
    a: Weights,
    b: Weights,
    M: Numbers,
    reg: float,
    reg_m: Penalties,
    method: Method = "sinkhorn",
    reg_type: RegType = "kl",
    c: Numbers | None = None,
    warmstart: Sequence[Any] | None = None,
    returnCost: Returned = "linear",
    numItermax: int = 1000,
    stopThr: float = 1e-06,
    verbose: bool = False,
    log: bool = False,
    **kwargs: Unpack[Taken],
) -> Costs | tuple[Costs, Log]:
    """POT's `ot.sinkhorn_unbalanced2`: what the entropic plan with penalised marginals costs.

    Args:
        a: Source weights, (n,); [] means 1/n each.
        b: Target weights, (m,), or (m, k) for k targets; [] means 1/m each.
        M: Costs, (n, m).
        reg: Regularisation in units of the cost, above zero.
        reg_m: KL penalty on the marginals, one number or a pair; inf is an exact one.
        method: One of POT's names, in any case; all are answered by one solver.
        reg_type: "kl", against c, or "entropy", against ones.
        c: Reference of the regularisation, (n, m); None is a b^T.
        warmstart: Logarithms of scalings, (n,) and (m,).
        returnCost: "linear", `<P, M>`, or "total", with entropy and penalties as POT counts them.
        numItermax: Sweeps allowed.
        stopThr: Relative L1 error of what the marginals answer to reach.
        verbose: Whether to show a progress bar.
        log: Whether to return a dictionary too, as `sinkhorn_unbalanced` does.
        kwargs: As `sinkhorn_unbalanced` takes them.

    Returns:
        The cost, (), or (k,) for k targets; with log=True a dictionary beside it.

    Raises:
        ValueError: If an argument breaks a rule.

    Source: as for `sinkhorn_unbalanced`.
    """
    checks.one_of("returnCost", returnCost, get_args(Returned))
    how = How(stopThr, numItermax, verbose)
    p, r = _found(a, b, M, reg, reg_m, method, reg_type, c, warmstart, how, kwargs)
    cost = p.form.out(p.linear(r) if returnCost == "linear" else p.total(r))
    return (cost, p.written(r)) if log else cost


def sinkhorn_knopp_unbalanced(  # noqa: PLR0913
    a: Weights,
    b: Weights,
    M: Kind,
    reg: float,
    reg_m: Penalties,
    reg_type: RegType = "kl",
    c: Kind | None = None,
    warmstart: Sequence[Any] | None = None,
    **kwargs: Any,
) -> Any:
    """POT's name for `sinkhorn_unbalanced` by one method, whose answer is that of all."""
    return sinkhorn_unbalanced(
        a, b, M, reg, reg_m, reg_type=reg_type, c=c, warmstart=warmstart, **kwargs
    )


sinkhorn_stabilized_unbalanced = sinkhorn_knopp_unbalanced


def pair(reg_m: Any) -> tuple[Any, Any]:
    """Return the penalties of both marginals; None is an exact one."""
    if isinstance(reg_m, (int, float)) or np.ndim(reg_m) == 0:
        sides = [reg_m, reg_m]
    else:
        sides = list(reg_m) * (2 if len(reg_m) == 1 else 1)
    if len(sides) != 2:
        raise ValueError(f"reg_m must be one penalty or two, got {len(sides)}")
    first, second = (
        None if not isinstance(rho, Tensor) and math.isinf(rho) else rho for rho in sides
    )
    return first, second


# what `solve` calls penalties; KL by numbers is solved by all means there are
PENALTIES = {"kl": None, "l2": L2, "tv": TV}


def penalties(unbalanced: Any, kind: str) -> tuple[Any, Any]:
    """Return what `unbalanced=` takes for both marginals; None is an exact one."""
    make = PENALTIES[kind]
    first, second = (rho if rho is None or make is None else make(rho) for rho in pair(unbalanced))
    return first, second


@shown
@dataclass(frozen=True, eq=False)
class Relaxed:
    """An entropic problem with penalised marginals, as POT poses it and as `solve` does.

    Attributes:
        form: How to answer.
        M: Costs, (n, m).
        cost: The cost that `solve` is given, (n, m) or (k, n, m).
        a: Source weights.
        b: Target weights, (m,) or (k, m).
        reg: Regularisation.
        relax: Penalties.
        c: The reference; None is a b^T.
    """

    form: Form
    M: Any
    cost: Any
    a: Any
    b: Any
    reg: Any
    relax: tuple[Any, Any]
    c: Any

    @staticmethod
    def posed(  # noqa: PLR0913
        form: Form,
        M: Any,
        a: Any,
        b: Any,
        reg: Any,
        relax: tuple[Any, Any],
        kind: str,
        c: Any,
    ) -> "Relaxed":
        """Return the problem; `kind` is "kl" or "entropy", whose reference are ones."""
        if kind == "entropy":
            c = torch.ones((), dtype=torch.float64)
        if c is None:
            return Relaxed(form, M, M, a, b, reg, relax, None)
        c = torch.as_tensor(c)
        return Relaxed(form, M, references(M, a, b, reg, c), a, b, reg, relax, c)

    def solved(self, how: How, start: Any = None, name: str = "warmstart") -> Transport:
        """Return the answer, from logarithms of scalings."""
        init = None
        if start is not None:
            u, v = two_sides(name, start, self.M.shape)
            init = float(self.reg) * u, float(self.reg) * v
        more = {"unbalanced": self.relax, "init": init}
        if self.relax == (None, None):
            more.pop("unbalanced")
        return answered(self.cost, self.a, self.b, self.reg, how, WORDS, **more)

    def linear(self, r: Transport) -> Tensor:
        """Return <P, M>, (...)."""
        if self.c is None:
            return r.value_linear
        found: Tensor = (r.plan * torch.as_tensor(self.M)).sum((-2, -1))
        return found

    def total(self, r: Transport) -> Tensor:
        """Return the objective as POT counts it: its divergences leave out masses, (...)."""
        P = r.plan
        a, b = (self._weights(w, n, r) for w, n in zip((self.a, self.b), P.shape[-2:], strict=True))
        c = a[..., :, None] * b[..., None, :] if self.c is None else self.c
        value: Tensor = self.linear(r) + self.reg * _divergence(P, c).sum((-2, -1))
        for rho, w, mass in zip(self.relax, (a, b), (P.sum(-1), P.sum(-2)), strict=True):
            if rho is not None:
                value = value + rho * _divergence(mass, w).sum(-1)
        return value

    def objective(self, r: Transport) -> Tensor:
        """Return what is minimised, (...): all masses counted, but that of an entropy's ones."""
        if self.c is None:
            return r.value
        a, b = (self._weights(w, n, r) for w, n in zip((self.a, self.b), r.plan.shape, strict=True))
        c = torch.as_tensor(self.c)
        value: Tensor = r.value - self.reg * (a.sum() * b.sum() - (c.sum() if c.ndim else 0.0))
        return value

    def scalings(self, r: Transport) -> tuple[Tensor, Tensor]:
        """Return logarithms of the scalings of c exp(-M / reg), (..., n) and (..., m)."""
        return r.f / self.reg, r.g / self.reg

    def written(self, r: Transport) -> dict[str, Any]:
        """Return what POT writes down."""
        log_u, log_v = self.scalings(r)
        if r.problem.batch_shape:
            log_u, log_v = log_u.mT, log_v.mT
        found = logged(self.form, r, log_u, log_v, self.reg)
        costs = {"cost": self.linear(r), "total_cost": self.total(r)}
        return found | {name: self.form.out(t) for name, t in costs.items()}

    def result(self, r: Transport) -> OTResult[Any]:
        """Return the answer as POT's `solve` tells it: only KL beside KL is without masses."""
        plain = self.c is None or torch.as_tensor(self.c).ndim > 0
        theirs = plain and not any(isinstance(rho, Penalty) for rho in self.relax)
        parts = {
            "value": lambda: self.total(r) if theirs else self.objective(r),
            "value_linear": lambda: self.linear(r),
            "plan": lambda: r.plan,
            "potentials": lambda: self.scalings(r),
        }
        return OTResult(self.form, parts, r)

    def _weights(self, w: Any, size: int, r: Transport) -> Tensor:
        if w is None:
            return r.problem.a.new_full((size,), 1 / size)
        return torch.as_tensor(w, device=r.problem.a.device)


def _found(  # noqa: PLR0913
    a: Any,
    b: Any,
    M: Any,
    reg: Any,
    reg_m: Any,
    method: str,
    reg_type: str,
    c: Any,
    warmstart: Any,
    how: How,
    options: Taken,
) -> tuple[Relaxed, Transport]:
    known(options, tuple(Taken.__annotations__))
    checks.one_of("method", method.lower() if isinstance(method, str) else method, get_args(Method))
    kind = checks.one_of("reg_type", str(reg_type).lower(), ("kl", "entropy"))
    form, M, (a, b, c) = taken(M, a, b, c)
    b = b.T if b is not None and b.ndim == 2 else b
    p = Relaxed.posed(form, M, a, b, reg, pair(reg_m), kind, c)
    return p, p.solved(how, warmstart)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Return p log(p / q), 0 where p is."""
    ratio = torch.where((p > 0) & (q > 0), p / torch.where(q > 0, q, 1.0), 1.0)
    return p * ratio.log()


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        raise absent(__name__, name)
