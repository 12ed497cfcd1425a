"""Calls inside transforms, of `torch.func` or in forward mode: solved once, outside of them all.

A transform sees tensors that stand for others. At the bottom of all of them is one problem, or with
`vmap` one batch, which is solved as it would be anywhere. What transforms are shown is a function
that they do not look into; its derivatives, backward and forward, are such functions again, made
by plain differentiation there.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from sinkhorn_ot.problem import PointCloud, checks, shown


P = ParamSpec("P")
R = TypeVar("R")

# arguments that may be transformed, and their dimensions behind those of a batch
DIMENSIONS = {"cost": 2, "x": 2, "y": 2, "a": 1, "b": 1, "reg": 0, "alpha": 0}
# what is one number for all problems of a batch
PENALTIES = ("rho", "rho_a", "rho_b")
# what results do to tensors
_METHODS = ("apply", "apply_transpose", "barycentric")

Tensors = tuple[Tensor, ...]


def transformable(call: Callable[P, R]) -> Callable[P, R]:
    """Return a call whose arguments may be inside of transforms, where its result tells numbers."""
    signature = inspect.signature(call)

    @functools.wraps(call)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        if not checks.transforming():
            return call(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        leaves = _leaves(given)
        if not any(map(checks.transformed, leaves.values())):
            return call(*args, **kwargs)
        return cast("R", Told(call, given, leaves))

    return inside


class Told:
    """What a result tells inside of transforms: its numbers, as functions of the arguments."""

    def __init__(
        self, call: Callable[..., Any], given: Mapping[str, Any], leaves: Mapping[str, Tensor]
    ) -> None:
        self._leaves = tuple(leaves.values())
        # a warm start has no derivatives
        plain = {k: t.solved.result if isinstance(t, Told) else t for k, t in given.items()}
        waits = tuple(map(checks.differentiated, self._leaves))
        self.solved: _Solved = _Solved(call, plain, tuple(leaves), waits)
        _opaque(_Act(self.solved, self.solved.enter), *self._leaves)
        self.solved.mapped = self.solved.held[0].ndim - self._leaves[0].ndim

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _METHODS:
            return functools.partial(self._applied, name)
        return self._number(name)

    def __repr__(self) -> str:
        n, m = self.solved.result.problem.shape[1:]
        return f"Told(batch={tuple(self.solved.batch)}, n={n}, m={m}, inside a transform)"

    def _applied(self, name: str, x: Tensor) -> Tensor:
        """Return what a method makes of vectors, one or several per problem."""
        batch = self.solved.batch
        vector = x.ndim == 1 or x.shape[:-1] == batch
        columns = x[..., None] if vector else x
        out = self._number(name, columns.expand(*batch, *columns.shape[-2:]))
        return out[..., 0] if vector else out

    def _number(self, name: str, *given: Tensor) -> Tensor:
        def tell(*live: Tensor) -> Tensors:
            found = getattr(self.solved.result, name)
            found = found(*live[: len(given)]) if given else found
            if not isinstance(found, Tensor):
                raise ValueError(
                    f"{name} is not told inside a transform of torch.func, which sees tensors "
                    "alone: ask for converged there, or call this outside of vmap, grad and jvp"
                )
            return (found,)

        (out,) = _opaque(_Act(self.solved, tell, len(given)), *given, *self._leaves)
        return out


@shown
@dataclass(eq=False)
class _Solved:
    """A call at the bottom of all transforms.

    Attributes:
        call: What is called.
        given: Its arguments by name.
        names: Those that transforms stand for; x and y where the cost is a cloud.
        waits: Whether each of them has derivatives.
        held: These as the call had them.
        result: What it returned.
        mapped: Dimensions that transforms have put in front of a batch.
    """

    call: Callable[..., Any]
    given: Mapping[str, Any]
    names: tuple[str, ...]
    waits: tuple[bool, ...]
    held: Tensors = ()
    result: Any = None
    mapped: int = field(default=0)

    @property
    def batch(self) -> torch.Size:
        """Leading dimensions as the caller sees them."""
        return torch.Size(self.result.problem.batch_shape[self.mapped :])

    def enter(self, *leaves: Tensor) -> Tensors:
        """Make the call, once."""
        pairs = zip(leaves, self.waits, strict=True)
        held = tuple(t.detach().requires_grad_(waits) for t, waits in pairs)
        with torch.enable_grad():
            self.result = self.call(**_put(self.given, dict(zip(self.names, held, strict=True))))
        self.held = held
        return (torch.zeros_like(leaves[0]),)


@shown
@dataclass(frozen=True, eq=False)
class _Act:
    """A function of some tensors and then of the arguments of a call.

    Attributes:
        solved: The call.
        run: What it does, with gradients where they are on.
        own: How many tensors come first.
        order: How often something was differentiated to make it.
    """

    solved: _Solved
    run: Callable[..., Tensors]
    own: int = 0
    order: int = 0

    def __call__(self, *tensors: Tensor) -> Tensors:
        """Call it of tensors that know no transform; the arguments are as the result knows them."""
        moving = (t.detach().requires_grad_(t.is_floating_point()) for t in tensors[: self.own])
        leaves = self.solved.held or tensors[self.own :]
        return tuple(t.detach() for t in self.run(*moving, *leaves))

    @property
    def needs(self) -> list[int]:
        """Which of the tensors have derivatives."""
        waits = [self.own + k for k, t in enumerate(self.solved.held) if t.requires_grad]
        return [*range(self.own), *waits]

    def pulled(self, outs: int) -> "_Act":
        """Return what makes, of derivatives by what it returns, those by what `needs` them."""

        def run(*live: Tensor) -> Tensors:
            twice, rest = torch.is_grad_enabled(), live[outs:]
            with torch.enable_grad():
                return _grad(self.run(*rest), [rest[k] for k in self.needs], live[:outs], twice)

        return _Act(self.solved, run, outs + self.own, self.order + 1)

    def pushed(self) -> "_Act":
        """Return what makes, of tangents of what `needs` them, those of what it returns.

        Derivatives are linear in what multiplies them; the derivative of that is the tangent.
        """
        count = len(self.needs)

        def run(*live: Tensor) -> Tensors:
            twice, rest = torch.is_grad_enabled(), live[count:]
            with torch.enable_grad():
                found = self.run(*rest)
                by = [torch.zeros_like(t, requires_grad=t.is_floating_point()) for t in found]
                parts = _grad(found, [rest[k] for k in self.needs], by, twice=True)
                return _grad(parts, by, live[:count], twice)

        return _Act(self.solved, run, count + self.own, self.order + 1)


def _grad(found: Tensors, by: Any, along: Any, twice: bool) -> Tensors:
    """Return derivatives, zeros where there are none."""
    pairs = [(t, s.to(t.dtype)) for t, s in zip(found, along, strict=True) if t.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(t) for t in by)
    outs, ways = zip(*pairs, strict=True)
    return tuple(
        torch.autograd.grad(
            outs, by, ways, create_graph=twice, materialize_grads=True, allow_unused=True
        )
    )


def _opaque(act: _Act, *tensors: Tensor) -> Tensors:
    found: Tensors = _Opaque.apply(act, *tensors)  # type: ignore[no-untyped-call]
    return found


class _Opaque(torch.autograd.Function):
    """What transforms are shown of an act."""

    @staticmethod
    def forward(act: _Act, *tensors: Tensor) -> Tensors:
        return act(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.act, *tensors = inputs
        ctx.outs = len(output)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        tensors = ctx.saved_tensors
        found: list[Any] = [None] * (1 + len(tensors))
        parts = _opaque(ctx.act.pulled(ctx.outs), *grads, *tensors)
        for k, part in zip(ctx.act.needs, parts, strict=True):
            found[1 + k] = part
        return tuple(found)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        tensors = ctx.saved_tensors
        along = (
            torch.zeros_like(tensors[k]) if tangents[1 + k] is None else tangents[1 + k]
            for k in ctx.act.needs
        )
        found = _opaque(ctx.act.pushed(), *along, *tensors)
        return tuple(t if t.is_floating_point() else None for t in found)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        act, *tensors = args
        own, size, dims = act.own, info.batch_size, in_dims[1:]
        if all(d is None for d in dims[own:]):
            # what is mapped is no problem's: derivatives by one result, or vectors
            turns = [
                _opaque(
                    act,
                    *(
                        t if d is None else t.select(d, k)
                        for t, d in zip(tensors, dims, strict=True)
                    ),
                )
                for k in range(size)
            ]
            outs = tuple(torch.stack(turn) for turn in zip(*turns, strict=True))
        else:
            outs = _opaque(act, *_in_front(act, size, dims, tensors))
        return outs, (0,) * len(outs)


def _in_front(act: _Act, size: int, dims: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors with the dimension that is mapped in front: one problem of a batch each."""
    names, found = (*[""] * act.own, *act.solved.names), []
    for name, d, t in zip(names, dims, tensors, strict=True):
        if name not in PENALTIES:
            found.append(t.expand(size, *t.shape) if d is None else t.movedim(d, 0))
        elif d is None and not act.order:
            found.append(t)
        else:
            raise ValueError(
                "unbalanced must not be mapped, nor be differentiated by inside of vmap: it is one "
                "number for all problems of a batch; call this in a loop, or differentiate outside"
            )
    return found


def outside(act: Callable[..., Tensors], *tensors: Tensor) -> Tensors:
    """Call a function of tensors outside of all transforms that they are in."""
    return _opaque(_Act(_NOBODY, act, len(tensors)), *tensors)


# whose arguments nobody waits for
_NOBODY = _Solved(lambda: None, {}, (), ())


def _leaves(given: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors that transforms stand for or that require grad, by what they are.

    All have as many leading dimensions, so that one more in front is one of all of them.
    """
    named: dict[str, Any] = {name: given.get(name) for name in ("cost", "a", "b", "reg", "alpha")}
    if isinstance(cloud := named["cost"], PointCloud):
        named |= {"cost": None, "x": cloud.x, "y": cloud.y}
    leading = {k: np.ndim(t) - DIMENSIONS[k] for k, t in named.items() if t is not None}
    if few := [k for k, size in leading.items() if size < 0]:
        name, size = few[0], DIMENSIONS[few[0]]
        raise ValueError(
            f"{name} must have at least {size} dimensions, got shape {np.shape(named[name])}"
        )
    most = max(*leading.values(), *_led(given.get("mask")))
    rho: Any = given.get("unbalanced")
    pair = isinstance(rho, (tuple, list)) and len(rho) == 2
    named |= dict(zip(PENALTIES[1:], rho, strict=True)) if pair else {PENALTIES[0]: rho}
    found = {}
    for name, t in named.items():
        if isinstance(t, Tensor) and (checks.transformed(t) or t.requires_grad):
            found[name] = t[(None,) * (most - leading.get(name, most))]
    return found


def _led(mask: Any) -> list[int]:
    """Return how many leading dimensions the sides of a mask have; booleans have points too."""
    sides = mask if isinstance(mask, (tuple, list)) else ()
    held = [side if isinstance(side, Tensor) else np.asarray(side) for side in sides]
    return [0, *(t.ndim - (t.dtype in (torch.bool, np.bool_)) for t in held)]


def _put(given: Mapping[str, Any], leaves: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments with other tensors."""
    found = {**given, **{name: t for name, t in leaves.items() if name in given}}
    points = {name: leaves[name] for name in ("x", "y") if name in leaves}
    if points:
        found["cost"] = replace(given["cost"], **points)
    if "rho" in leaves:
        found["unbalanced"] = leaves["rho"]
    elif sides := [name for name in PENALTIES[1:] if name in leaves]:
        rho = dict(zip(PENALTIES[1:], given["unbalanced"], strict=True))
        found["unbalanced"] = tuple((rho | {name: leaves[name] for name in sides}).values())
    return found
