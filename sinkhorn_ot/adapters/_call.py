"""A call for codes: its arguments, checked, and what ranks that share it must agree on."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot import _check

from ._ranks import Ranks


@dataclass(frozen=True, eq=False)
class Call:
    """Arguments of `swav_codes` that have passed: the mask has the rows' shape, `last` is given."""

    S: Tensor
    eps: float
    n_iter: int | None
    mask: Tensor | None
    last: int
    out_dtype: torch.dtype


def call(
    scores: Any, eps: Any, n_iter: Any, mask: Any, last: Any, out_dtype: Any, ranks: Ranks
) -> Call:
    """Check the arguments of `swav_codes`."""
    S = _scores(scores, ranks)
    return Call(
        S,
        _temperature(eps),
        None if n_iter is None else _check.count("n_iter", n_iter),
        None if mask is None else _mask(mask, S),
        S.shape[-2] if last is None else _last(last, S.shape[-2]),
        S.dtype if out_dtype is None else _floating(out_dtype),
    )


def terms(p: Call) -> dict[str, object]:
    """Return what ranks must agree on to reduce numbers per prototype."""
    kind = str(torch.promote_types(p.S.dtype, torch.float32)).removeprefix("torch.")
    return {
        "K": p.S.shape[-1],
        "eps": p.eps,
        "n_iter": p.n_iter,
        "leading dimensions": tuple(p.S.shape[:-2]),
        "dtype": kind,
        "device": p.S.device.type,
    }


def _scores(scores: Any, ranks: Ranks) -> Tensor:
    S = _check.tensor("scores", scores)
    # a rank of a group may be without samples
    if not ranks.alone and S.ndim >= 2 and S.numel() == 0 and 0 not in (*S.shape[:-2], S.shape[-1]):
        return S
    return _check.at_least_dims("scores", S, 2, "(..., N, K)")


def _mask(mask: Any, S: Tensor) -> Tensor:
    """Return the mask, (..., N), of the shape and on the device of the scores."""
    keep = torch.as_tensor(mask)
    if keep.dtype != torch.bool:
        kind = str(keep.dtype).removeprefix("torch.")
        raise ValueError(f"mask must be bool, true where a sample counts, got {kind}")
    _check.same_device("mask", keep, S.device, "scores")
    rows = S.shape[:-1]
    if keep.shape not in (rows, rows[-1:]):
        raise ValueError(
            f"mask must have shape {tuple(rows)} or {tuple(rows[-1:])} to fit scores of "
            f"{tuple(S.shape)}, got {tuple(keep.shape)}"
        )
    return keep.expand(rows)


def _last(last: Any, N: int) -> int:
    value = _check.count("last", last, at_least=0)
    if value > N:
        raise ValueError(f"last must be at most the number of samples, {N}, got {value}")
    return value


def _temperature(eps: Any) -> float:
    value = _check.positive("eps", eps)
    # 1 / eps must be a float32 number
    if value < 1e-30:
        raise ValueError(f"eps must be at least 1e-30, got {value!r}")
    return value


def _floating(dtype: torch.dtype) -> torch.dtype:
    if dtype not in _check.FLOATS:
        raise ValueError(f"out_dtype must be a floating-point dtype, got {dtype!r}")
    return dtype
