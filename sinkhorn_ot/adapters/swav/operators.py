"""SwAV's codes as PyTorch operators: `torch.compile`, fake tensors and `vmap` see through them.

Each operator has one meaning and two implementations: what a call runs on a CPU anyway, and Triton
on CUDA. A compiler that looked into the steps would take a minute to make what is no faster. They
are registered when this file is first imported, under `torch.ops.sinkhorn_ot`. None of them has a
derivative; asking for one is an error.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sinkhorn_ot.adapters.arguments import Asked
from sinkhorn_ot.problem import shown
from sinkhorn_ot.sweeps import ALONE

from .codes import by_host


@shown
class How(NamedTuple):
    """What both operators take beside what they read and the mask of it.

    Attributes:
        inv_eps: 1 / eps; kernels take that of each problem too, (B,).
        n_iter: Iterations.
        last: How many codes are asked for.
        hard: Whether each is one at its largest entry.
        dtype: Dtype of the codes.
    """

    inv_eps: Tensor | float
    n_iter: int
    last: int
    hard: bool
    dtype: torch.dtype


# the same in the words of PyTorch, to whom an operator has one signature
_HOW = "Tensor? keep, float inv_eps, SymInt n_iter, SymInt last, bool hard, ScalarType dtype"


def codes(S: Tensor, keep: Tensor | None, *how: Any) -> Tensor:
    """Return the codes (B, last, K) of the last samples of scores, in any floating `dtype`.

    Prototypes first, n_iter times, samples last. Samples (B, N) that `keep` leaves out have no
    weight and codes of zeros; `hard` codes are one at the first of the largest entries.

    Args:
        S: Scores, (B, N, K).
        keep: Samples that count, (B, N), bool; None for all.
        *how: The fields of `How`.
    """
    inv_eps, n_iter, last, hard, dtype = How(*how)
    start = S.shape[1] - last
    kept = None if keep is None else keep[:, start:]
    assert isinstance(inv_eps, float)
    p = Asked(S, ALONE, 1.0 / inv_eps, n_iter, keep, start, kept, dtype, hard, "scores")
    return by_host(p, n_iter).contiguous()


def feature_codes(z: Tensor, c: Tensor, keep: Tensor | None, *how: Any) -> Tensor:
    """Return `codes` of the scores of features z (B, N, D) and prototypes c (B or 1, K, D)."""
    return codes(z.float() @ c.float().mT, keep, *how)


def _one_hot(labels: Tensor, K: int, dtype: torch.dtype) -> Tensor:
    """Return one at each label, (..., K); a label of -1 has none."""
    Q = torch.zeros(*labels.shape, K, dtype=dtype, device=labels.device)
    return Q.scatter_(-1, labels.clamp(min=0)[..., None], (labels >= 0)[..., None].to(dtype))


def codes_by_triton(S: Tensor, keep: Tensor | None, *how: Any) -> Tensor:
    """Launch `codes`; scores of half precision are read, and codes written, as they are stored."""
    # imported here: a CPU never pays for triton
    from sinkhorn_ot.kernels import codes as kernels

    inv_eps, n_iter, last, hard, dtype = How(*how)
    soft, labels = kernels.codes(
        S, None, inv_eps, n_iter, last, soft=None if hard else dtype, hard=hard, keep=keep
    )
    return _read(soft, labels, S.shape[-1], dtype)


def feature_codes_by_triton(z: Tensor, c: Tensor, keep: Tensor | None, *how: Any) -> Tensor:
    """Launch `feature_codes`: the same without a matrix of scores."""
    from sinkhorn_ot.kernels import features as kernels

    inv_eps, n_iter, last, hard, dtype = How(*how)
    assert isinstance(inv_eps, Tensor)
    r = torch.ones(len(z), c.shape[1], device=z.device)
    clouds = kernels.place_features(z, c)
    f = kernels.solve(clouds, r, inv_eps, n_iter, keep)
    kept = None if keep is None else keep[:, keep.shape[1] - last :]
    soft, labels = kernels.write(
        clouds, f, inv_eps, last, soft=None if hard else dtype, hard=hard, keep=kept
    )
    return _read(soft, labels, c.shape[1], dtype)


def _read(soft: Tensor | None, labels: Tensor | None, K: int, dtype: torch.dtype) -> Tensor:
    if soft is not None:
        return soft
    assert labels is not None
    return _one_hot(labels, K, dtype)


def launched(launch: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return an operator's implementation: kernels are given 1 / eps of each problem."""

    def launches(first: Tensor, *args: Any) -> Tensor:
        *others, inv_eps, n_iter, last, hard, dtype = args
        each = torch.full((len(first),), inv_eps, device=first.device)
        return launch(first, *others, each, n_iter, last, hard, dtype)

    return launches


def _batched(op: Callable[..., Any]) -> Callable[..., Any]:
    """Return the vmap rule: every tensor has a batch dimension already, so fold the new one in."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size
        tensors = [
            (t.movedim(d, 0) if d is not None else t.expand(size, *t.shape))
            for t, d in zip(args, in_dims, strict=True)
            if isinstance(t, Tensor)
        ]
        # prototypes that one problem of a call shares have to be every problem's own
        most = max(t.shape[1] for t in tensors)
        tensors = [t.expand(size, most, *t.shape[2:]).flatten(0, 1) for t in tensors]
        folded = iter(tensors)
        out = op(*(next(folded) if isinstance(t, Tensor) else t for t in args))
        return out.unflatten(0, (size, most)), 0

    return rule


def _shape_of_codes(S: Tensor, keep: Any, *how: Any) -> Tensor:
    asked = How(*how)
    return S.new_empty((S.shape[0], asked.last, S.shape[2]), dtype=asked.dtype)


def _shape_of_feature_codes(z: Tensor, c: Tensor, keep: Any, *how: Any) -> Tensor:
    asked = How(*how)
    return z.new_empty((z.shape[0], asked.last, c.shape[1]), dtype=asked.dtype)


for _meaning, _read_from, _launch, _shape in (
    (codes, "Tensor S", codes_by_triton, _shape_of_codes),
    (feature_codes, "Tensor z, Tensor c", feature_codes_by_triton, _shape_of_feature_codes),
):
    _op = torch.library.custom_op(
        f"sinkhorn_ot::{_meaning.__name__}",
        _meaning,
        mutates_args=(),
        device_types="cpu",
        schema=f"({_read_from}, {_HOW}) -> Tensor",
    )
    _op.register_kernel("cuda")(launched(_launch))
    _op.register_fake(_shape)
    _op.register_vmap(_batched(_op))
