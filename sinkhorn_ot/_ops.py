"""The kernels as PyTorch operators: `torch.compile`, fake tensors and `vmap` see through them.

Each operator has one meaning and two implementations: eager PyTorch on CPUs, Triton on CUDA. They
are registered when this file is first imported, under `torch.ops.sinkhorn_ot`. None of them has a
derivative; asking for one is an error.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def dense_sweep(
    C: Tensor, u: Tensor | None, v: Tensor, a: Tensor, inv_reg: Tensor, kappa: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the moved row potential (B, n) and the log column sums (B, m); see `sweep.Sweep`."""
    return _eager_sweep(_scaled(C, inv_reg), v, a, kappa)


def cloud_sweep(
    x: Tensor,
    y: Tensor,
    metric: str,
    u: Tensor | None,
    v: Tensor,
    a: Tensor,
    inv_reg: Tensor,
    kappa: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the moved row potential (B, n) and the log column sums (B, m) between two clouds."""
    return _eager_sweep(_scaled(_cost(x, y, metric), inv_reg), v, a, kappa)


def dense_apply(C: Tensor, u: Tensor, v: Tensor, x: Tensor, inv_reg: Tensor) -> Tensor:
    """Return P @ x, (B, n, k), with P_ij = exp(u_i + v_j - C_ij / reg)."""
    return _eager_plan(_scaled(C, inv_reg), u, v) @ x.to(v.dtype)


def cloud_apply(
    x: Tensor, y: Tensor, metric: str, u: Tensor, v: Tensor, z: Tensor, inv_reg: Tensor
) -> Tensor:
    """Return P @ z, (B, n, k), for the plan between two clouds."""
    return _eager_plan(_scaled(_cost(x, y, metric), inv_reg), u, v) @ z.to(v.dtype)


def codes(S: Tensor, inv_eps: Tensor, n_iter: int, last: int) -> Tensor:
    """Return the codes (B, last, K) of the last samples of scores, float32.

    Prototypes first, n_iter times, samples last.
    """
    E = S.float() * inv_eps[:, None, None]
    g = E.new_zeros(E.shape[:2])
    f = E.new_zeros(E.shape[0], E.shape[2])
    for _ in range(n_iter):
        f = -torch.logsumexp(E + g[:, :, None], -2)
        g = -torch.logsumexp(E + f[:, None, :], -1)
    start = S.shape[1] - last
    return (E[:, start:] + f[:, None, :] + g[:, start:, None]).exp()


def feature_codes(z: Tensor, c: Tensor, inv_eps: Tensor, n_iter: int, last: int) -> Tensor:
    """Return `codes` of the scores of features z (B, N, D) and prototypes c (B or 1, K, D)."""
    return codes(z.float() @ c.float().mT, inv_eps, n_iter, last)


def _scaled(C: Tensor, inv_reg: Tensor) -> Tensor:
    return -C.to(inv_reg.dtype) * inv_reg[:, None, None]


def _cost(x: Tensor, y: Tensor, metric: str) -> Tensor:
    x, y = x.float(), y.float()
    if metric == "sqeuclidean":
        return torch.cdist(x, y).square()
    if metric == "cosine":
        x, y = (torch.nn.functional.normalize(t, dim=-1) for t in (x, y))
        return 1.0 - x @ y.mT
    return -(x @ y.mT)


def _eager_sweep(E: Tensor, v: Tensor, a: Tensor, kappa: Tensor | None) -> tuple[Tensor, Tensor]:
    log_sum = torch.logsumexp(E + v[:, None, :], -1)
    if kappa is not None:
        log_sum = torch.where(kappa[:, None] > 0, kappa[:, None] * log_sum, 0.0)
    u = torch.where(a > 0, a.log() - log_sum, -math.inf)
    return u, torch.logsumexp(E + u[:, :, None], -2) + v


def _eager_plan(E: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return (E + u[:, :, None] + v[:, None, :]).exp()


def _like_sweep(v: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(a), torch.empty_like(v)


def _fake_apply(u: Tensor, x: Tensor) -> Tensor:
    return u.new_empty(u.shape[0], u.shape[1], x.shape[-1])


def _fake_codes(x: Tensor, K: int, last: int) -> Tensor:
    return x.new_empty((x.shape[0], last, K), dtype=torch.float32)


# operator, its Triton launcher in `_triton`, its shape rule
_TABLE: tuple[tuple[Callable[..., Any], str, Callable[..., Any]], ...] = (
    (dense_sweep, "dense_sweep_op", lambda C, u, v, a, *_: _like_sweep(v, a)),
    (cloud_sweep, "cloud_sweep_op", lambda x, y, metric, u, v, a, *_: _like_sweep(v, a)),
    (dense_apply, "dense_apply_op", lambda C, u, v, x, *_: _fake_apply(u, x)),
    (cloud_apply, "cloud_apply_op", lambda x, y, metric, u, v, z, *_: _fake_apply(u, z)),
    (codes, "codes_op", lambda S, inv_eps, n_iter, last: _fake_codes(S, S.shape[2], last)),
    (
        feature_codes,
        "feature_codes_op",
        lambda z, c, inv_eps, n_iter, last: _fake_codes(z, c.shape[1], last),
    ),
)


def _launcher(name: str) -> Callable[..., Any]:
    """Return the Triton implementation, imported at its first use."""

    def launch(*args: Any) -> Any:
        from . import _triton

        return getattr(_triton, name)(*args)

    return launch


def _batched(op: Callable[..., Any]) -> Callable[..., Any]:
    """Return the vmap rule: every tensor has a batch dimension already, so fold the new one in."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size
        tensors = [
            (t.movedim(d, 0) if d is not None else t.expand(size, *t.shape))
            for t, d in zip(args, in_dims, strict=True)
            if isinstance(t, Tensor)
        ]
        # a cost that one problem of a call shares has to be every problem's own
        most = max(t.shape[1] for t in tensors)
        tensors = [t.expand(size, most, *t.shape[2:]).flatten(0, 1) for t in tensors]
        folded = iter(tensors)
        out = op(*(next(folded) if isinstance(t, Tensor) else t for t in args))
        many = isinstance(out, tuple)
        parts = tuple(t.unflatten(0, (size, most)) for t in (out if many else (out,)))
        return (parts, (0,) * len(parts)) if many else (parts[0], 0)

    return rule


def _register() -> None:
    for meaning, launcher, shape in _TABLE:
        name = f"sinkhorn_ot::{meaning.__name__}"
        op = torch.library.custom_op(name, meaning, mutates_args=(), device_types="cpu")
        op.register_kernel("cuda")(_launcher(launcher))
        op.register_fake(shape)
        op.register_vmap(_batched(op))


_register()
