"""Numbers that know their derivatives: the one `autograd.Function` of all that a result tells."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor


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
    """Return derivatives that have none themselves: whoever asks for those is told."""
    if not torch.is_grad_enabled():
        return parts

    def refuse(_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            f"{what} has first derivatives only: second derivatives are there for value, by cost, "
            "points, weights and reg"
        )

    return tuple(None if t is None else attached(refuse, t, *leaves) for t in parts)


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
        parts = ctx.pull(grad) if any(ctx.needs_input_grad[2:]) else ()
        return None, grad, *(parts or [None] * (len(ctx.needs_input_grad) - 2))
