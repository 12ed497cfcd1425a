"""What differentiates the layer eagerly: forwards, backwards, again, and inside `torch.func`."""

from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks

from . import definition, operators


class Matrices(torch.autograd.Function):
    """The matrices, as `operators.matrices` returns them."""

    @staticmethod
    def forward(x: Tensor, a: Any, b: Any, *how: Any) -> Any:
        """Compute them; modes are shown the operator."""
        act = torch.ops.sinkhorn_ot.normalize if checks.seen_through(x) else operators.matrices
        return act(x, a, b, *how)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the input and nothing else."""
        ctx.save_for_backward(*inputs[:3])
        ctx.save_for_forward(*inputs[:3])
        ctx.how = inputs[3:]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return derivatives to the input."""
        weights = any(ctx.needs_input_grad[1:3])
        to = Derivatives.apply(*grads, *ctx.saved_tensors, *ctx.how, weights)  # type: ignore[no-untyped-call]
        return *(to if weights else (to[0], None, None)), None, None, None

    @staticmethod
    def jvp(ctx: Any, *rates: Any) -> Any:
        """Return the tangent of the matrices."""
        x, a, b = ctx.saved_tensors
        at = x, *definition.given(x, a, b)
        return definition.tangents(*at, *_zeros(at, rates), *ctx.how)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Fold the batch in."""
        return operators.matrices_of_many(Matrices.apply, info.batch_size, in_dims, args)


class Derivatives(torch.autograd.Function):
    """The derivatives of the matrices, as `operators.derivatives` returns them."""

    @staticmethod
    def forward(G: Tensor, x: Tensor, a: Any, b: Any, *how: Any) -> Any:
        """Compute them; modes are shown the operator."""
        seen = checks.seen_through(G, x)
        act = torch.ops.sinkhorn_ot.normalize_backward if seen else operators.derivatives
        return act(G, x, a, b, *how)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the input and nothing else."""
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.how = inputs[4:]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return derivatives of the derivatives."""
        return *operators.second(grads, ctx.saved_tensors, ctx.how), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *rates: Any) -> Any:
        """Return the tangents of the derivatives."""
        G, x, a, b = ctx.saved_tensors
        at = x, *definition.given(x, a, b)
        dG, *moved = _zeros((G, *at), rates)
        return operators.moved(G, at, dG, moved, ctx.how)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Fold the batch in."""
        return operators.derivatives_of_many(Derivatives.apply, info.batch_size, in_dims, args)


def _zeros(at: Any, rates: Any) -> list[Tensor]:
    """Return how fast tensors change, zero where none is told; what follows them has no rate."""
    return [torch.zeros_like(t) if d is None else d for t, d in zip(at, rates, strict=False)]
