"""A call for codes: its arguments, checked, and what ranks that share it must agree on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks, shown
from sinkhorn_ot.sweeps import Ranks


@shown
@dataclass(frozen=True, eq=False)
class Call:
    """What codes are asked for, in arguments that have passed.

    Attributes:
        S: Scores, (..., N, K).
        eps: Their temperature.
        n_iter: Iterations; None for convergence.
        mask: Samples that count, (..., N); None for all.
        last: Number of codes asked for, those of the last samples.
        out_dtype: Their dtype.
        hard: Whether each is one at its largest entry and zero elsewhere.
        name: What the caller calls the scores.
        back: Takes what has the shape of S to the caller's.
    """

    S: Tensor
    eps: float
    n_iter: int | None
    mask: Tensor | None
    last: int
    out_dtype: torch.dtype
    hard: bool
    name: str
    back: Callable[[Tensor], Tensor] = lambda x: x

    @property
    def inv(self) -> float:
        """What scores are multiplied with."""
        return 1.0 / self.eps

    @property
    def start(self) -> int:
        """The first sample whose code is asked for."""
        return self.S.shape[-2] - self.last

    @property
    def last_mask(self) -> Tensor | None:
        """Which of the codes asked for belong to samples that count."""
        return None if self.mask is None else self.mask[..., self.start :]


def call(  # noqa: PLR0913
    ranks: Ranks,
    scores: Any,
    eps: Any,
    n_iter: Any,
    mask: Any,
    last: Any = None,
    out_dtype: Any = None,
    hard: bool = False,
    name: str = "scores",
) -> Call:
    """Check the arguments of `swav_codes`."""
    S = samples(name, scores, "(..., N, K)", ranks)
    return Call(
        S,
        temperature("eps", eps),
        None if n_iter is None else checks.count("n_iter", n_iter),
        None if mask is None else rows_that_count(mask, S.shape, S.device),
        S.shape[-2] if last is None else _last(last, S.shape[-2]),
        S.dtype if out_dtype is None else _floating(out_dtype),
        hard,
        name,
    )


def samples(name: str, x: Any, meaning: str, ranks: Ranks) -> Tensor:
    """Require samples of something, (..., N, K); N may be zero on a rank of a group."""
    t = checks.tensor(name, x)
    sizes = () if t.ndim < 2 else (*t.shape[:-2], t.shape[-1])
    if not ranks.alone and sizes and 0 not in sizes:
        return t
    return checks.at_least_dims(name, t, 2, meaning)


def terms(p: Call) -> dict[str, object]:
    """Return what ranks must agree on to reduce numbers per prototype."""
    return {
        "K": p.S.shape[-1],
        "eps": p.eps,
        "n_iter": p.n_iter,
        "leading dimensions": tuple(p.S.shape[:-2]),
        "dtype": at_least_single(p.S),
        "device": p.S.device.type,
    }


def at_least_single(x: Tensor) -> torch.dtype:
    """Return the dtype to compute in: float32 for half precision."""
    return torch.promote_types(x.dtype, torch.float32)


def mean_of_rows(x: Tensor) -> Tensor:
    """Return the mean of x (N,); zero, with a gradient of zero, where a rank has no samples."""
    return x.mean() if len(x) else x.sum()


def rows_that_count(mask: Any, shape: torch.Size, device: torch.device) -> Tensor:
    """Return the mask of samples, (..., N), for scores or logits of shape (..., N, K)."""
    keep = torch.as_tensor(mask)
    if keep.dtype != torch.bool:
        kind = str(keep.dtype).removeprefix("torch.")
        raise ValueError(f"mask must be bool, true where a sample counts, got {kind}")
    if keep.device != device:
        raise ValueError(f"mask must be on the device of the scores ({device}), got {keep.device}")
    rows = shape[:-1]
    if keep.shape not in (rows, rows[-1:]):
        raise ValueError(
            f"mask must have shape {tuple(rows)} or {tuple(rows[-1:])} to fit {tuple(shape)}, "
            f"got {tuple(keep.shape)}"
        )
    return keep.expand(rows)


def temperature(name: str, value: Any) -> float:
    """Require a number above zero whose inverse is a float32 number."""
    found = checks.positive(name, value)
    if found < 1e-30:
        raise ValueError(f"{name} must be at least 1e-30, got {found!r}")
    return found


def _last(last: Any, N: int) -> int:
    value = checks.count("last", last, at_least=0)
    if value > N:
        raise ValueError(f"last must be at most the number of samples, {N}, got {value}")
    return value


def _floating(dtype: torch.dtype) -> torch.dtype:
    if dtype not in checks.FLOATS:
        raise ValueError(f"out_dtype must be a floating-point dtype, got {dtype!r}")
    return dtype
