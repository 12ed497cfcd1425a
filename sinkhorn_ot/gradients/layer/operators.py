"""The layer as PyTorch operators: `torch.compile`, fake tensors and `vmap` see through them.

An operator's autograd knows neither forward mode nor `torch.func`; `functions.py` serves those.
Weights are both given, or both None, which costs no launch.
"""

from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import has_triton

from . import definition, portable
from .definition import given, working


# the fields of `How` in the words of PyTorch
_HOW = "float scale, SymInt n_iter, bool log"
_AT = "Tensor x, Tensor? a, Tensor? b"

Weight = Tensor | None


def matrices(x: Tensor, a: Weight, b: Weight, *how: Any) -> Tensor:
    """Return what `definition.matrices` means, from the implementation that serves the device."""
    if has_kernels(x):
        return matrices_by_triton(x, a, b, *how)
    return portable.matrices(x, *given(x, a, b), *how)


def derivatives(G: Tensor, x: Tensor, a: Weight, b: Weight, *how: Any) -> tuple[Tensor, ...]:
    """Return derivatives to x, a and b of a loss with derivatives G to the matrices.

    `how` ends with whether those to the weights are wanted; if not they are empty.
    """
    if has_kernels(x):
        return derivatives_by_triton(G, x, a, b, *how)
    to_x, to_a, to_b = portable.derivatives(G, x, *given(x, a, b), *how)
    return (to_x, to_a, to_b) if how[-1] else (to_x, to_a.new_empty(0), to_b.new_empty(0))


def has_kernels(x: Tensor) -> bool:
    """Say whether kernels take matrices (B, n, m) like these."""
    if x.device.type != "cuda" or not has_triton():
        return False
    # imported here: a CPU never pays for triton
    from sinkhorn_ot.kernels import normalize as kernels

    n, m = x.shape[1:]
    return kernels.serves(n, m, working(x.dtype))


def matrices_by_triton(x: Tensor, a: Weight, b: Weight, *how: Any) -> Tensor:
    """Launch `matrices`."""
    from sinkhorn_ot.kernels import normalize as kernels

    out = torch.empty_like(x)
    return kernels.matrices(_laid_out(x, out), a, b, *how, out=out)


def derivatives_by_triton(
    G: Tensor, x: Tensor, a: Weight, b: Weight, *how: Any
) -> tuple[Tensor, ...]:
    """Launch `derivatives`; those to weights that problems share are added up thereafter."""
    from sinkhorn_ot.kernels import normalize as kernels

    out = torch.empty_like(x)
    to_x, *found = kernels.derivatives(G, _laid_out(x, out), a, b, *how, out=out)
    shared = [w is not None and how[-1] and len(w) == 1 for w in (a, b)]
    to_a, to_b = (
        t.sum(0, keepdim=True) if one else t for t, one in zip(found, shared, strict=True)
    )
    return to_x, to_a, to_b


def _laid_out(x: Tensor, out: Tensor) -> Tensor:
    """Return x with the strides of `out`, which has its shape; a copy where it has others."""
    return x if x.stride() == out.stride() else out.copy_(x)


def second(wanted: Any, at: Any, how: Any) -> Any:
    """Return derivatives to G, x, a and b of a loss of `derivatives`, by the definition."""
    *rest, weights = how
    G, x, a, b = at

    def first(G: Tensor, *at: Tensor) -> Any:
        found = torch.func.vjp(lambda *at: definition.matrices(*at, *rest), *at)[1](G)
        return found if weights else found[:1]

    found = torch.func.vjp(first, G, x, *given(x, a, b))[1](
        tuple(wanted if weights else wanted[:1])
    )
    return found if a is not None else (*found[:2], None, None)


def moved(G: Tensor, at: Any, dG: Tensor, rates: Any, how: Any) -> Any:
    """Return how fast `derivatives` change; second derivatives are symmetric."""
    *rest, weights = how
    x, a, b = at
    at = x, *given(x, a, b)

    def rate(*at: Tensor) -> Tensor:
        return definition.tangents(*at, *rates, *rest)

    def first(*at: Tensor) -> Tensor:
        return definition.matrices(*at, *rest)

    by_place, by_loss = torch.func.vjp(rate, *at)[1](G), torch.func.vjp(first, *at)[1](dG)
    found = [p + q for p, q in zip(by_place, by_loss, strict=True)]
    return tuple(found) if weights else (found[0], *(t.new_zeros(0) for t in found[1:]))


def matrices_of_many(act: Any, many: int, dims: Any, args: Any) -> Any:
    """Map `act`, which means `matrices`, over one more batch."""
    tensors, size = _folded(many, dims, args[:3], own=False)
    return act(*tensors, *args[3:]).unflatten(0, (many, size)), 0


def derivatives_of_many(act: Any, many: int, dims: Any, args: Any) -> Any:
    """Map `act`, which means `derivatives`, over one more batch."""
    weights = args[-1]
    tensors, size = _folded(many, dims, args[:4], own=weights)
    found = act(*tensors, *args[4:])
    if not weights:
        return (found[0].unflatten(0, (many, size)), *found[1:]), (0, None, None)
    found = [t.unflatten(0, (many, size)) for t in found]
    for k in (1, 2):
        t, d = args[k + 1], dims[k + 1]
        if _problems(t, d) == 1:
            found[k] = found[k].sum(1, keepdim=True)
    return tuple(found), (0, 0, 0)


def _problems(t: Tensor, mapped: int | None) -> int:
    """Return the size of the batch dimension that a tensor has beside what is mapped."""
    return len(t) if mapped is None else t.movedim(mapped, 0).shape[1]


def _folded(many: int, dims: Any, tensors: Any, own: bool) -> tuple[list[Weight], int]:
    """Fold one more batch into the batch dimension that every tensor has; return its old size.

    Args:
        many: Size of what is mapped over.
        dims: Which dimension of each tensor that is; None for none.
        tensors: Those, the last two of which are weights that problems may share, or None.
        own: Whether each problem is to have weights of its own.
    """
    pairs = list(zip(tensors, dims, strict=False))
    size = max(_problems(t, d) for t, d in pairs if t is not None)
    out: list[Weight] = []
    for k, (t, d) in enumerate(pairs):
        shared = k >= len(pairs) - 2 and not own and d is None and t is not None and len(t) == 1
        if t is None or shared:
            out.append(t)
            continue
        t = t[None] if d is None else t.movedim(d, 0)
        out.append(t.expand(many, size, *t.shape[2:]).flatten(0, 1))
    return out, size


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep what comes before the scale, which are tensors or None, and nothing else."""
    count = next(k for k, given in enumerate(inputs) if isinstance(given, float))
    ctx.save_for_backward(*inputs[:count])
    ctx.how = inputs[count:]


def _back(ctx: Any, G: Tensor) -> Any:
    weights = any(ctx.needs_input_grad[1:3])
    to = torch.ops.sinkhorn_ot.normalize_backward(G, *ctx.saved_tensors, *ctx.how, weights)
    return *(to if weights else (to[0], None, None)), None, None, None


def _back_again(ctx: Any, *wanted: Any) -> Any:
    return *second(wanted, ctx.saved_tensors, ctx.how), None, None, None, None


def _shapes(G: Tensor, x: Tensor, a: Weight, b: Weight, *how: Any) -> tuple[Tensor, ...]:
    shapes = [w.shape if w is not None and how[-1] else (0,) for w in (a, b)]
    return torch.empty_like(x), *(x.new_empty(s, dtype=working(x.dtype)) for s in shapes)


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
