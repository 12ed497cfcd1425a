"""What a call for codes asks for: its arguments, checked, and the same on all ranks."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import at_once, checks, shown
from sinkhorn_ot.results import ON_FAIL
from sinkhorn_ot.sweeps import ProcessGroup, Ranks


# scores over their temperature beyond which sums of a few are none that float64 holds
HELD = 1e307
# scores of other samples that are looked at together
_TILE = 1 << 16


# what ranks need not agree on
_OWN = ("S", "ranks", "mask", "start", "kept", "out_dtype", "hard", "name", "shares", "back")


@shown
@dataclass(frozen=True, eq=False)
class Asked:
    """What a call asks for, checked.

    Attributes:
        S: Scores, (..., N, K).
        ranks: Who holds the other samples.
        eps: Their temperature.
        n_iter: Iterations; None for convergence.
        mask: Samples that count, (..., N); None for all.
        start: First sample whose code is asked for.
        kept: The mask from there on.
        out_dtype: Dtype of the codes.
        hard: Whether each is one at its largest entry and zero elsewhere.
        name: What the caller calls the scores.
        eps_name: What the caller calls their temperature.
        call: What the caller is called.
        on_fail: What to do where convergence is asked for and not reached.
        shares: What each prototype is to hold, 1 being N / K samples, (..., K), float64; None for 1
            each.
        back: Takes what has the shape of S to the caller's.
    """

    S: Tensor
    ranks: Ranks
    eps: float
    n_iter: int | None
    mask: Tensor | None
    start: int
    kept: Tensor | None
    out_dtype: torch.dtype
    hard: bool
    name: str
    eps_name: str = "eps"
    call: str = "swav_codes"
    on_fail: str = "warn"
    shares: Tensor | None = None
    back: Callable[[Tensor], Tensor] = lambda x: x

    def terms(self) -> dict[str, object]:
        """Return what ranks must agree on to reduce numbers per prototype."""
        return {
            "K": self.S.shape[-1],
            **alike(self, *_OWN),
            "marginal": None if self.shares is None else self.shares.tolist(),
            "leading dimensions": tuple(self.S.shape[:-2]),
            "dtype": at_least_single(self.S.dtype),
            "device": self.S.device.type,
        }

    @property
    def unresolved(self) -> str:
        """What to say where rounding the exponents would decide the codes; see `resolved`."""
        return (
            f"{self.eps_name} must be at least {{least:.3g}} for {{dtype}} to resolve {self.name} "
            f"over it, got {{reg:.3g}}: raise it, or subtract a constant from {self.name}"
        )

    def require_sound(self) -> None:
        """Raise for the first score that is not finite, or one too large, of those that count."""
        # a sum that is finite and not large has no other terms
        total = self.S.abs().sum(dtype=torch.float64)
        if self.mask is None and total / self.eps <= HELD:
            return
        bad = not_finite(self.S, self.mask)
        if bad.any():
            checks.refuse(self.name, "be finite", self.back(self.S), self.back(bad))
        counting = self.S if self.mask is None else self.S[self.mask]
        largest = float(counting.abs().max()) if counting.numel() else 0.0
        if largest / self.eps > HELD:
            raise ValueError(
                f"{self.eps_name} must be at least {largest / HELD:.3g} for float64 to hold "
                f"{self.name} over it, got {self.eps:.3g}: raise it, or scale {self.name} down"
            )


def alike(asked: Any, *own: str) -> dict[str, object]:
    """Return the fields of a dataclass that ranks must agree on: all but those of their own.

    So a new field is compared unless it is said not to be.
    """
    return {f.name: getattr(asked, f.name) for f in fields(asked) if f.name not in own}


def agreed(group: ProcessGroup | None, *arguments: Any) -> Asked:
    """Return `checked` arguments of `swav_codes`, once all ranks of a group have passed."""
    ranks = Ranks(group)
    if ranks.alone:
        return checked(ranks, *arguments)
    return ranks.agree(lambda: checked(ranks, *arguments), Asked.terms, lasting=True)


def checked(  # noqa: PLR0913
    ranks: Ranks,
    scores: Any,
    eps: Any,
    n_iter: Any,
    mask: Any,
    last: Any = None,
    out_dtype: Any = None,
    hard: bool = False,
    name: str = "scores",
    eps_name: str = "eps",
    call: str = "swav_codes",
    on_fail: Any = "warn",
) -> Asked:
    """Check the arguments of `swav_codes`."""
    S = checks.present(name, samples(name, scores, "(..., N, K)", ranks))
    eps = temperature(eps_name, eps)
    n_iter = None if n_iter is None else checks.count("n_iter", n_iter)
    mask = None if mask is None else rows_that_count(mask, S.shape, S.device)
    start = 0 if last is None else S.shape[-2] - _last(last, S.shape[-2])
    return Asked(
        S,
        ranks,
        eps,
        n_iter,
        mask,
        start,
        None if mask is None else mask[..., start:],
        S.dtype if out_dtype is None else checks.floating("out_dtype", out_dtype),
        checks.flag("hard", hard),
        name,
        eps_name,
        call,
        checks.one_of("on_fail", on_fail, ON_FAIL),
    )


def sound(name: str, x: Tensor) -> Tensor:
    """Require finite numbers, where a look at them is free: on a CPU, and not when traced."""
    if x.device.type == "cpu" and x.numel() and not torch.compiler.is_compiling():
        checks.finite(name, x.detach())
    return x


def samples(name: str, x: Any, meaning: str, ranks: Ranks) -> Tensor:
    """Require samples of something, (..., N, K); N may be zero on a rank of a group."""
    t = checks.tensor(name, x)
    sizes = t.shape if ranks.alone else (*t.shape[:-2], *t.shape[-1:])
    return checks.at_least_dims(name, t, 2, meaning) if t.ndim < 2 or 0 in sizes else t


def not_finite(S: Tensor, mask: Tensor | None) -> Tensor:
    """Return which scores of samples that count are not finite."""
    bad = ~torch.isfinite(S)
    return bad if mask is None else bad & mask[..., None]


def levelled(S: Tensor, mask: Tensor) -> Tensor:
    """Return scores (..., N, K) in which samples that do not count widen no bounds."""
    if S.numel() == 0:
        return S
    out = ~mask[..., None]
    level = S.masked_fill(out, -math.inf).amax().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return torch.where(out, level, S)


def at_least_single(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: float32 for half precision."""
    return torch.promote_types(dtype, torch.float32)


def mean_of_rows(x: Tensor) -> Tensor:
    """Return the mean of x (N,); zero, with a gradient of zero, where a rank has no samples."""
    return x.mean() if len(x) else x.sum()


def truths(mask: Any) -> Tensor:
    """Return a mask as a tensor of bools, of any shape."""
    keep = mask if isinstance(mask, Tensor) else torch.from_numpy(checks.array("mask", mask))
    if keep.dtype != torch.bool:
        kind = str(keep.dtype).removeprefix("torch.")
        raise ValueError(f"mask must be bool, true where a sample counts, got {kind}")
    return keep


def rows_that_count(mask: Any, shape: torch.Size, device: torch.device) -> Tensor:
    """Return the mask of samples, (..., N), for scores or logits of shape (..., N, K)."""
    keep = truths(mask)
    if keep.device != device:
        raise ValueError(f"mask must be on the device of the scores ({device}), got {keep.device}")
    rows = shape[:-1]
    if keep.shape not in (rows, rows[-1:]):
        raise ValueError(
            f"mask must have shape {tuple(rows)} or {tuple(rows[-1:])} to fit {tuple(shape)}, "
            f"got {tuple(keep.shape)}"
        )
    return keep.expand(rows)


def per_label(
    name: str, x: Any, shape: tuple[int, ...], device: torch.device, owner: str
) -> Tensor:
    """Return numbers given per label as (..., K), in float64, for scores of shape (..., N, K)."""
    t = checks.tensor(name, x, whole=True)
    checks.same_device(name, t, device, owner)
    *batch, _, K = shape
    try:
        if t.shape[-1:] != (K,):
            raise RuntimeError
        return t.double().expand(*batch, K)
    except RuntimeError:
        raise ValueError(
            f"{name} must have shape ({K},) or (..., {K}) to fit {owner} of {tuple(shape)}, "
            f"got {tuple(t.shape)}"
        ) from None


def others(name: str, x: Any, potentials: Tensor) -> Tensor:
    """Return scores of samples that were not there, (..., M, K), which fit potentials (..., K)."""
    S = checks.at_least_dims(name, checks.tensor(name, x), 2, "(..., M, K)")
    checks.same_device(name, S, potentials.device, "the potentials")
    *batch, K = potentials.shape
    if S.shape[-1] != K or batch not in ([], [*S.shape[:-2]]):
        leading = ", ".join(map(str, batch)) or "..."
        raise ValueError(f"{name} must have shape ({leading}, M, {K}), got {tuple(S.shape)}")
    return S


def best_labels(name: str, x: Any, potentials: Tensor) -> Tensor:
    """Return argmax of scores + potentials for samples that were not there, (..., M), int64.

    Raises:
        ValueError: If the scores do not fit, one is NaN or inf, or a sample may take no label.
    """
    S = others(name, x, potentials)
    labels = torch.empty(S.shape[:-1], dtype=torch.int64, device=S.device)
    size = max(1, at_once(S.device, _TILE) // max(1, S[..., 0, :].numel()))
    for start in range(0, S.shape[-2], size):
        rows = slice(start, start + size)
        best = (S[..., rows, :].double() + potentials[..., None, :]).max(-1)
        labels[..., rows] = best.indices
        if not bool(best.values.isfinite().all()):
            at = checks.first_index(~best.values.isfinite())
            value, where = float(best.values[at]), (*at[:-1], start + at[-1])
            rule = "allow every sample a label that has a share, and hold numbers below inf"
            place = where[0] if len(where) == 1 else where
            raise ValueError(f"{name} must {rule}, got {value:.4g} at best in row {place}")
    return labels


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
