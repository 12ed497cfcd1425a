"""`normalize`: scale rows and columns in turn, a fixed number of times, with gradients."""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sinkhorn_ot.problem import ArrayLike, checks

from .definition import working


# what a step may scale first
Side = Literal["rows", "columns"]


def normalize(
    logits: ArrayLike,
    n_iter: int = 20,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    reg: float = 1.0,
    first: Side = "rows",
    log: bool = False,
) -> Tensor:
    """Return exp(logits / reg) with rows scaled to sums `a`, columns to sums `b`, `n_iter` times.

    A layer for training: exactly `n_iter` steps, whatever the numbers, and the gradient is that of
    these steps. Only the input is stored for it; the steps are taken again on the way back. All
    steps are exact in the log domain, so that no logit is too large. The side that is scaled last
    has its sums to rounding, the other one nearly, the nearer the more steps.

    Differentiable in `logits`, `a` and `b`: backwards and forwards, any number of times (beyond the
    first derivative at the cost of plain PyTorch), under `torch.compile`, `vmap` and `torch.func`.

    Args:
        logits: Logits, (..., n, m). Entries of -inf are masked: zero in the result, and without
            gradient. A row or column all of whose entries are masked stays empty.
        n_iter: Steps, each of which scales both sides once; none is exp(logits / reg).
        a: Sums of the rows, (n,) or (..., n), non-negative. None is one for each row, or what `b`
            sums to in equal parts. Totals of `a` and `b` need not agree.
        b: Sums of the columns, (m,) or (..., m). None is what `a` sums to in equal parts, so that
            every column of a square matrix sums to one, and to n / m otherwise.
        reg: Temperature, one number above zero. Divide the logits by one that learns.
        first: Which side each step scales first, "rows" or "columns"; the other one comes last.
        log: Return the log of the matrix, -inf where that is zero.

    Returns:
        The matrix, or its log, (..., n, m), in the dtype of the logits. Half precision is computed
        in float32.

    Raises:
        ValueError: If an argument breaks a rule; for NaN or inf in the logits, with the index.
            Values are looked at on the CPU only, and not where something sees through the call.

    Source: R. Sinkhorn, A relationship between arbitrary positive matrices and doubly stochastic
    matrices, Ann. Math. Statist. 35, 1964. As a layer: G. Mena et al., Learning latent permutations
    with Gumbel-Sinkhorn networks, ICLR 2018; P.-E. Sarlin et al., SuperGlue, CVPR 2020; Z. Xie et
    al., mHC: Manifold-constrained hyper-connections, arXiv 2512.24880.
    """
    x = _taken("logits", logits)
    n_iter = checks.count("n_iter", n_iter, at_least=0)
    scale = _scale(reg)
    swap = checks.one_of("first", first, get_args(Side)) == "columns"
    log = checks.flag("log", log)
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"logits must have shape (..., n, m), not empty, got {tuple(x.shape)}")
    look = x.device.type == "cpu" and not checks.seen_through(x, *_tensors(a, b))
    if look and not bool((x.detach() < math.inf).all()):
        checks.refuse("logits", "be numbers below inf", x, ~(x < math.inf))
    rows, columns = _sums(a, b, x, look, swap)
    with torch.autocast(x.device.type, enabled=False):
        if n_iter == 0 or x.numel() == 0:
            plain = x.to(working(x.dtype)) * scale
            return (plain if log else plain.exp()).to(x.dtype)
        if swap:
            return _matrices(x.mT, columns, rows, scale, n_iter, log).mT
        return _matrices(x, rows, columns, scale, n_iter, log)


def _matrices(
    x: Tensor, a: Tensor | None, b: Tensor | None, scale: float, n_iter: int, log: bool
) -> Tensor:
    """Return the matrices of logits (..., n, m), rows first."""
    # imported here: it registers operators, which only this call needs
    from .functions import Matrices

    *batch, n, m = x.shape
    a, b = (None if w is None else _flat(w, batch) for w in (a, b))
    act: Any = Matrices.apply
    if torch.compiler.is_compiling():
        act = torch.ops.sinkhorn_ot.normalize
    out: Tensor = act(x.reshape(-1, n, m), a, b, scale, n_iter, log)
    return out.reshape(*batch, n, m)


def _flat(w: Tensor, batch: list[int]) -> Tensor:
    """Return weights as (B, k), or (1, k) where all matrices share them."""
    shared = all(size == 1 for size in w.shape[:-1])
    return (w if shared else w.expand(*batch, w.shape[-1])).reshape(-1, w.shape[-1])


def _sums(
    a: Any, b: Any, x: Tensor, look: bool, swap: bool
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Return what rows and columns sum to, in the dtype of the computation; None as it is meant."""
    n, m = x.shape[-2:]
    rows = None if a is None else _weights("a", a, n, x, look)
    columns = None if b is None else _weights("b", b, m, x, look)
    if rows is not None:
        return rows, _evenly(rows, m) if columns is None else columns
    if columns is not None:
        return _evenly(columns, n), columns
    if not swap or n == m:
        return None, None
    # turned round, it would be the columns that sum to one
    new = working(x.dtype), x.device
    return checks.full((n,), 1.0, *new), checks.full((m,), n / m, *new)


def _evenly(w: Tensor, k: int) -> Tensor:
    return (w.sum(-1, keepdim=True) / k).expand(*w.shape[:-1], k)


def _weights(name: str, w: Any, size: int, x: Tensor, look: bool) -> Tensor:
    t = w if isinstance(w, Tensor) else torch.from_numpy(checks.array(name, w))
    t = checks.same_device(name, checks.strided(name, t), x.device, "logits")
    if t.is_complex():
        raise ValueError(
            f"{name} must hold real numbers, got {str(t.dtype).removeprefix('torch.')}"
        )
    if t.ndim == 0 or t.shape[-1] != size:
        raise ValueError(f"{name} must have shape (..., {size}), got {tuple(t.shape)}")
    batch = tuple(x.shape[:-2])
    pairs = zip(reversed(t.shape[:-1]), reversed(batch), strict=False)
    if t.ndim - 1 > len(batch) or any(k not in (1, of) for k, of in pairs):
        raise ValueError(
            f"{name} must broadcast with logits, of batch shape {batch}, got {tuple(t.shape)}"
        )
    if look and t.numel():
        checks.weights(name, t.detach())
    return t.to(working(x.dtype))


def _scale(reg: Any) -> float:
    if isinstance(reg, Tensor) and reg.requires_grad:
        raise ValueError(
            "reg must be one number without a gradient: divide the logits by a temperature that "
            "learns"
        )
    scale = 1.0 / checks.positive("reg", reg)
    if not scale < math.inf:
        raise ValueError(f"reg must be a number whose inverse float64 holds, got {reg!r}")
    return scale


def _taken(name: str, x: Any) -> Tensor:
    t = x if isinstance(x, Tensor) else torch.from_numpy(checks.array(name, x))
    t = checks.present(name, checks.strided(name, t))
    if t.dtype not in checks.FLOATS:
        kind = str(t.dtype).removeprefix("torch.")
        raise ValueError(f"{name} must be floating point, got {kind}: convert it, e.g. .float()")
    return t


def _tensors(*given: Any) -> list[Tensor]:
    return [t for t in given if isinstance(t, Tensor)]
