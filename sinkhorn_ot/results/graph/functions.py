"""Numbers that know their derivatives: a function whose backward pass is told when it is made."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks

from .transforms import outside


C = TypeVar("C", bound="Copied")

# from the derivative of a loss by some numbers to those by what they were made of
Pull = Callable[[Tensor], tuple[Tensor | None, ...]]


class Derivatives(Protocol):
    """What makes a result's numbers functions of the arguments that they were made of."""

    def link(self, kind: str, flat: Tensor, *given: Tensor) -> Tensor:
        """Return numbers of a flat batch with their derivatives.

        Args:
            kind: Which property or method of the result tells them.
            flat: The numbers, (B, ...), in the working dtype.
            given: Arguments of the method, flat.
        """
        ...


class Through:
    """Derivatives of numbers that were picked from others, or brought to another device.

    Args:
        whole: Derivatives of the others.
        put: Makes numbers of the others from some of these, zeros where there are none.
        take: Makes these of the others.
    """

    def __init__(
        self,
        whole: Derivatives,
        put: Callable[[Tensor], Tensor],
        take: Callable[[Tensor], Tensor],
    ) -> None:
        self._whole, self._put, self._take = whole, put, take

    def link(self, kind: str, flat: Tensor, *given: Tensor) -> Tensor:
        """Return numbers with the derivatives that they have among the others."""
        others = self._whole.link(kind, *map(self._put, (torch.zeros_like(flat), *given)))
        return flat + self._take(others)


class Copied:
    """A result whose copies hold constants, but for shallow ones, which are the same result.

    What derivatives end in stays where it is.
    """

    derivatives: Derivatives | None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "derivatives": None}

    def __copy__(self: C) -> C:
        return replace(self)  # type: ignore[type-var]


def attached(pull: Pull, numbers: Tensor, *leaves: Tensor) -> Tensor:
    """Return the numbers as a function of the leaves, whose derivative is `pull`.

    What derivatives the numbers have already stay and are added.

    Args:
        pull: Called in the backward pass; in one that is itself differentiated what it returns must
            have derivatives too.
        numbers: Any tensor.
        leaves: What they were made of, which must not be changed in place till then.
    """
    out: Tensor = _Attached.apply(pull, numbers, *leaves)  # type: ignore[no-untyped-call]
    return out


def final(what: str, parts: tuple[Tensor | None, ...], *leaves: Tensor) -> tuple[Any, ...]:
    """Return derivatives that have none by the leaves: whoever asks for those is told.

    What derivatives they have by what multiplied them stay.
    """
    if not torch.is_grad_enabled():
        return parts

    def refuse(_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            f"{what} has first derivatives only: second derivatives are there for value, by cost, "
            "points, weights and reg"
        )

    # beside what is multiplied, so that only who asks for more comes by
    return tuple(
        None if t is None else t + attached(refuse, torch.zeros_like(t), *leaves) for t in parts
    )


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(pull: Pull, numbers: Tensor, *leaves: Tensor) -> Tensor:
        return numbers.view_as(numbers)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.pull, _, *leaves = inputs
        # saved so that torch tells who changes them in place
        ctx.save_for_backward(*leaves)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _ = ctx.saved_tensors
        (grad,) = grads
        parts = _pulled(ctx.pull, grad) if any(ctx.needs_input_grad[2:]) else ()
        return None, grad, *(parts or [None] * (len(ctx.needs_input_grad) - 2))


def _pulled(pull: Pull, by: Tensor) -> tuple[Tensor | None, ...]:
    """Pull one derivative, or those that `vmap` has put into one, by turns."""
    if not (checks.transforming() and checks.transformed(by)):
        return pull(by)
    there: list[bool] = []

    def act(one: Tensor) -> tuple[Tensor, ...]:
        parts = pull(one)
        there[:] = [t is not None for t in parts]
        return tuple(t for t in parts if t is not None)

    found = iter(outside(act, by))
    return tuple(next(found) if held else None for held in there)
