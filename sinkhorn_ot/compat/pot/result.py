"""What POT's `solve` returns: plan, values and potentials, each computed when it is asked for."""

from collections.abc import Callable, Mapping
from typing import Any, Generic

import numpy as np
from torch import Tensor

from sinkhorn_ot.problem import needs, shown
from sinkhorn_ot.results import Status, Transport

from .arrays import Costs, Form, Kind


Parts = Mapping[str, Callable[[], Any]]


@shown
class OTResult(Generic[Kind]):
    """POT's `OTResult`, by the names that it has there.

    Args:
        form: How to answer.
        parts: What computes the plan, values and potentials.
        transport: Our own result, which knows more: bounds, gaps, `apply`.
        status: How the solve ended.
        log: What a method writes down.
    """

    def __init__(
        self,
        form: Form,
        parts: Parts,
        transport: Transport | None = None,
        status: str | None = None,
        log: dict[str, Any] | None = None,
    ) -> None:
        self._form, self._parts, self._known = form, parts, dict[str, Any]()
        self.transport, self._status, self.log = transport, status, log

    def __getstate__(self) -> dict[str, Any]:
        """Return all that can be asked for, computed, as constants."""
        known = {name: _constant(self._get(name)) for name in self._parts}
        return {**self.__dict__, "_parts": {}, "_known": known, "log": _constant(self.log)}

    def __copy__(self) -> "OTResult[Kind]":
        return OTResult(self._form, self._parts, self.transport, self._status, self.log)

    def _get(self, name: str) -> Any:
        if name not in self._known:
            make = self._parts.get(name)
            self._known[name] = None if make is None else _out(self._form, make())
        return self._known[name]

    @property
    def value(self) -> Costs:
        """The objective as POT counts it."""
        return self._get("value")

    @property
    def value_linear(self) -> Costs:
        """What the plan costs."""
        return self._get("value_linear")

    @property
    def value_quad(self) -> None:
        """None: no cost here is quadratic."""
        return

    @property
    def plan(self) -> Kind:
        """The plan, (n, m); None where a lazy one stands for it."""
        return self._get("plan")

    @property
    def sparse_plan(self) -> Any:
        """The plan without its zeros, as a matrix of SciPy or a sparse tensor."""
        P = self.plan
        if P is None or isinstance(P, Tensor):
            return None if P is None else P.to_sparse()
        # imported here: few ask
        with needs("scipy"):
            from scipy.sparse import csr_matrix

        return csr_matrix(P)

    @property
    def lazy_plan(self) -> "LazyPlan | None":
        """The plan row by row: indexed as an array, and never stored whole."""
        return self._get("lazy_plan")

    @property
    def potentials(self) -> tuple[Kind, Kind] | None:
        """Both potentials as POT's method has them: a pair, or None."""
        return self._get("potentials")

    @property
    def potential_a(self) -> Kind | None:
        """The source's of `potentials`."""
        return None if self.potentials is None else self.potentials[0]

    @property
    def potential_b(self) -> Kind | None:
        """The target's of `potentials`."""
        return None if self.potentials is None else self.potentials[1]

    def _sums(self, axis: int) -> Any:
        P: Any = self.plan
        return None if P is None else P.sum(axis)

    @property
    def marginal_a(self) -> Kind:
        """Row sums of the plan."""
        return self._sums(-1)

    @property
    def marginal_b(self) -> Kind:
        """Column sums of the plan."""
        return self._sums(-2)

    @property
    def marginals(self) -> tuple[Kind, Kind] | None:
        """Row sums and column sums of the plan."""
        return None if self.plan is None else (self.marginal_a, self.marginal_b)

    @property
    def status(self) -> str | None:
        """How the solve ended, in words."""
        if self._status is not None or self.transport is None:
            return self._status
        good = self.transport.status in (Status.CONVERGED, Status.OPTIMAL)
        return "Converged" if good else self.transport.message

    def lazily(self, plan: "LazyPlan") -> "OTResult[Kind]":
        """Return the same result with a plan that is never stored."""
        parts = {name: part for name, part in self._parts.items() if name != "plan"}
        parts["lazy_plan"] = lambda: plan
        return OTResult(self._form, parts, self.transport, self._status, self.log)

    def _shown(self) -> dict[str, Any]:
        """Return what is known without computing."""
        return {"status": self.status, **self._known}


@shown
class LazyPlan:
    """A plan whose rows are computed when they are asked for.

    Args:
        form: How to answer.
        transport: The result that has the plan.
    """

    def __init__(self, form: Form, transport: Transport) -> None:
        self._form, self._of = form, transport
        self.shape = transport.problem.shape[1:]

    def __getitem__(self, key: Any) -> Any:
        """Return rows, or rows and columns, as an array would."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        at = np.arange(self.shape[0])[rows]
        one = np.ndim(at) == 0
        index = np.atleast_1d(at)
        ones = self._of.problem.a.new_zeros(self.shape[0], len(index))
        ones[index, np.arange(len(index))] = 1.0
        found = self._of.apply_transpose(ones).mT
        found = found[0] if one else found
        return self._form.out(found[..., columns])

    def _shown(self) -> dict[str, Any]:
        """Return its shape and whose plan it is."""
        return {"shape": tuple(self.shape), "of": self._of}


def _out(form: Form, x: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(_out(form, t) for t in x)
    return form.out(x) if isinstance(x, Tensor) else x


def _constant(x: Any) -> Any:
    """Return what is held without derivatives, which no copy has."""
    if isinstance(x, Tensor):
        return x.detach()
    if isinstance(x, dict):
        return {name: _constant(t) for name, t in x.items()}
    return type(x)(map(_constant, x)) if isinstance(x, (list, tuple)) else x
