"""The layer as PyTorch operators: `torch.compile`, fake tensors and `vmap` see through them.

An operator's autograd knows neither forward mode nor `torch.func`; `functions.py` serves those.
"""

from typing import Any

import torch
from torch import Tensor

from . import definition, portable


# the fields of `How` in the words of PyTorch
_HOW = "float scale, SymInt n_iter, bool log"
_AT = "Tensor x, Tensor a, Tensor b"


def matrices(x: Tensor, a: Tensor, b: Tensor, *how: Any) -> Tensor:
    """Return what `definition.matrices` means, from the implementation that serves the device."""
    return portable.matrices(x, a, b, *how)


def derivatives(
    G: Tensor, x: Tensor, a: Tensor, b: Tensor, *how: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return derivatives to x, a and b of a loss with derivatives G to the matrices.

    `how` ends with whether those to the weights are wanted; if not they are empty.
    """
    *rest, weights = how
    to_x, to_a, to_b = portable.derivatives(G, x, a, b, *rest)
    return (to_x, to_a, to_b) if weights else (to_x, a.new_empty(0), b.new_empty(0))


def second(wanted: tuple[Any, ...], at: tuple[Tensor, ...], how: tuple[Any, ...]) -> Any:
    """Return derivatives to G, x, a and b of a loss of `derivatives`, by the definition."""
    *rest, weights = how

    def first(G: Tensor, *at: Tensor) -> Any:
        found = torch.func.vjp(lambda *at: definition.matrices(*at, *rest), *at)[1](G)
        return found if weights else found[:1]

    return torch.func.vjp(first, *at)[1](tuple(wanted if weights else wanted[:1]))


def moved(G: Tensor, at: Any, dG: Tensor, rates: Any, how: tuple[Any, ...]) -> Any:
    """Return how fast `derivatives` change; second derivatives are symmetric."""
    *rest, weights = how

    def rate(*at: Tensor) -> Tensor:
        return definition.tangents(*at, *rates, *rest)

    def first(*at: Tensor) -> Tensor:
        return definition.matrices(*at, *rest)

    found = [
        p + q
        for p, q in zip(
            torch.func.vjp(rate, *at)[1](G), torch.func.vjp(first, *at)[1](dG), strict=True
        )
    ]
    return tuple(found) if weights else (found[0], at[1].new_zeros(0), at[2].new_zeros(0))


def fold(many: int, dims: Any, tensors: Any, own: bool) -> tuple[list[Tensor], int]:
    """Fold one more batch into the batch dimension that every tensor has; return its old size.

    Args:
        many: Size of what is mapped over.
        dims: Which dimension of each tensor that is; None for none.
        tensors: Those, all but the last two of which have all problems.
        own: Whether each problem is to have weights of its own.
    """
    moved = [t if d is None else t.movedim(d, 0) for t, d in zip(tensors, dims, strict=False)]
    sizes = [len(t) if d is None else t.shape[1] for t, d in zip(moved, dims, strict=False)]
    size = max(sizes)
    out = []
    for k, (t, d) in enumerate(zip(moved, dims, strict=False)):
        if d is None and sizes[k] == 1 and k >= len(moved) - 2 and not own:
            out.append(t)
            continue
        t = t[None] if d is None else t
        out.append(t.expand(many, size, *t.shape[2:]).flatten(0, 1))
    return out, size


def matrices_of_many(act: Any, many: int, dims: Any, args: Any) -> Any:
    """Map `act`, which means `matrices`, over one more batch."""
    tensors, size = fold(many, dims, args[:3], own=False)
    return act(*tensors, *args[3:]).unflatten(0, (many, size)), 0


def derivatives_of_many(act: Any, many: int, dims: Any, args: Any) -> Any:
    """Map `act`, which means `derivatives`, over one more batch."""
    weights = args[-1]
    tensors, size = fold(many, dims, args[:4], own=weights)
    found = act(*tensors, *args[4:])
    if not weights:
        return (found[0].unflatten(0, (many, size)), *found[1:]), (0, None, None)
    found = [t.unflatten(0, (many, size)) for t in found]
    for k in (1, 2):
        t, d = args[k + 1], dims[k + 1]
        if (len(t) if d is None else t.movedim(d, 0).shape[1]) == 1:
            found[k] = found[k].sum(1, keepdim=True)
    return tuple(found), (0, 0, 0)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors = [t for t in inputs if isinstance(t, Tensor)]
    ctx.save_for_backward(*tensors)
    ctx.how = inputs[len(tensors) :]


def _back(ctx: Any, G: Tensor) -> Any:
    weights = any(ctx.needs_input_grad[1:3])
    to = torch.ops.sinkhorn_ot.normalize_backward(G, *ctx.saved_tensors, *ctx.how, weights)
    return *(to if weights else (to[0], None, None)), None, None, None


def _back_again(ctx: Any, *wanted: Any) -> Any:
    return *second(wanted, ctx.saved_tensors, ctx.how), None, None, None, None


def _shapes(G: Tensor, x: Tensor, a: Tensor, b: Tensor, *how: Any) -> tuple[Tensor, ...]:
    none = torch.Size([0])
    return torch.empty_like(x), *(w.new_empty(w.shape if how[-1] else none) for w in (a, b))


_FORWARD = torch.library.custom_op(
    "sinkhorn_ot::normalize", matrices, mutates_args=(), schema=f"({_AT}, {_HOW}) -> Tensor"
)
_FORWARD.register_fake(lambda x, *_: torch.empty_like(x))
_FORWARD.register_autograd(_back, setup_context=_remember)
_FORWARD.register_vmap(
    lambda info, dims, *args: matrices_of_many(_FORWARD, info.batch_size, dims, args)
)
_BACKWARD = torch.library.custom_op(
    "sinkhorn_ot::normalize_backward",
    derivatives,
    mutates_args=(),
    schema=f"(Tensor G, {_AT}, {_HOW}, bool weights) -> (Tensor, Tensor, Tensor)",
)
_BACKWARD.register_fake(_shapes)
_BACKWARD.register_autograd(_back_again, setup_context=_remember)
_BACKWARD.register_vmap(
    lambda info, dims, *args: derivatives_of_many(_BACKWARD, info.batch_size, dims, args)
)
