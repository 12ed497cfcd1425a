"""A call of `solve` with a number of sweeps inside a graph, and what its result tells there."""

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from sinkhorn_ot.problem import PointCloud


P = ParamSpec("P")
R = TypeVar("R")

# arguments that may be given by their place
_PLACES = ("cost", "a", "b", "reg")


def graphed(call: Callable[P, R]) -> Callable[P, R]:
    """Return a solve of which a compiler is shown operators, where sweeps are counted.

    Other calls, and arguments that are no tensors or numbers or that wait for derivatives, are as
    they are outside of graphs.
    """

    @functools.wraps(call)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling() and kwargs.get("n_iter") is not None:
            given = {**dict(zip(_PLACES, args, strict=False)), **kwargs}
            if _plain(given):
                return cast("R", Swept(call, given))
        return call(*args, **kwargs)

    return inside


def _plain(given: dict[str, Any]) -> bool:
    """Say whether operators take these arguments."""
    n_iter = given["n_iter"]
    if isinstance(n_iter, bool) or not isinstance(n_iter, int) or n_iter < 1:
        return False
    if not set(given) <= {*_PLACES, "unbalanced", "n_iter"}:
        return False
    cost, reg = given["cost"], given.get("reg")
    if isinstance(cost, PointCloud) and not isinstance(cost.metric, str):
        return False
    parts = [cost.x, cost.y] if isinstance(cost, PointCloud) else [cost]
    weights = [w for w in (given.get("a"), given.get("b")) if w is not None]
    tensors = [*parts, *weights, *([reg] if isinstance(reg, Tensor) else [])]
    if not all(isinstance(t, Tensor) and t.is_floating_point() for t in tensors):
        return False
    waits = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    numbers = isinstance(reg, (Tensor, float, int)) and _relax(given) is not None
    return numbers and not waits


def _relax(given: dict[str, Any]) -> list[float] | None:
    """Return the penalty of each side, None if they are no numbers."""
    rho = given.get("unbalanced")
    pair = rho if isinstance(rho, (tuple, list)) else (rho, rho)
    if len(pair) != 2 or not all(r is None or isinstance(r, (float, int)) for r in pair):
        return None
    return [math.inf if r is None else float(r) for r in pair]


class Swept:
    """What a result tells inside a graph: its numbers, each formed where it is asked for.

    What else is asked of it is asked of a result outside, which breaks the graph.
    """

    def __init__(self, call: Callable[..., Any], given: dict[str, Any]) -> None:
        # imported here: it registers operators, which only a compiler needs
        from . import operators

        self._call, self._given = call, given
        cost, reg = given["cost"], given["reg"]
        cloud = isinstance(cost, PointCloud)
        self._asked = (
            cost.scaled(cost.x) if cloud else cost,
            cost.scaled(cost.y) if cloud else None,
            cost.metric if cloud else "",
            cost.power if cloud else 1.0,
            given.get("a"),
            given.get("b"),
            reg if isinstance(reg, Tensor) else None,
            0.0 if isinstance(reg, Tensor) else float(reg),
            _relax(given),
        )
        self._numbers, self._methods = operators.NUMBERS, operators.METHODS
        self._u, self._v = torch.ops.sinkhorn_ot.sweeps(*self._asked, given["n_iter"])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._methods:
            return functools.partial(self._applied, name)
        if name in self._numbers:
            return self._told(name, None)
        return getattr(self._call(**self._given), name)

    def _applied(self, name: str, x: Any) -> Any:
        waits = isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled()
        if waits or not isinstance(x, Tensor):
            return getattr(self._call(**self._given), name)(x)
        return self._told(name, x)

    def _told(self, name: str, x: Tensor | None) -> Tensor:
        told: Tensor = torch.ops.sinkhorn_ot.swept(*self._asked, name, self._u, self._v, x)
        return told
