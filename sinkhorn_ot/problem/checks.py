"""Argument checks. Each returns the value it checked, so that it can be used inline."""

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor


FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def tensor(name: str, x: Any) -> Tensor:
    """Return `x` as a floating-point strided tensor; arrays and lists are converted."""
    if isinstance(x, Tensor):
        t = x
    else:
        array = _array(name, x)
        if array.dtype == object or array.dtype.kind not in "fiub":
            raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            raise ValueError(f"{name} must be at most float64, got dtype {array.dtype}")
        # torch takes neither negative strides, read-only memory nor foreign byte order
        native = array.dtype.newbyteorder("=")
        t = torch.from_numpy(np.array(array, dtype=native, order="C"))
    if t.dtype not in FLOATS:
        raise ValueError(
            f"{name} must be floating point, got {_dtype(t)}: convert it, e.g. .float()"
        )
    if t.layout is not torch.strided:
        raise ValueError(f"{name} must be a strided tensor, got layout {t.layout}")
    return constant(name, t)


def _array(name: str, x: Any) -> Any:
    if isinstance(x, np.ma.MaskedArray):
        raise ValueError(f"{name} must not be a masked array: give what is masked a value first")
    try:
        return np.asarray(x)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a tensor, an array or even lists of numbers") from None


def constant(name: str, t: Tensor) -> Tensor:
    """Return `t` cut from the graph; require that nobody waits for its gradient."""
    if t.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{name} requires grad, and gradients through this call are not supported yet: "
            f"pass {name}.detach() or call it under torch.no_grad()"
        )
    return t.detach()


def _dtype(t: Tensor) -> str:
    return str(t.dtype).removeprefix("torch.")


def positive(name: str, value: Any) -> float:
    """Require a finite number above zero."""
    result = number(name, value)
    if not (math.isfinite(result) and result > 0):
        raise ValueError(f"{name} must be a finite number above zero, got {value!r}")
    return result


def number(name: str, value: Any) -> float:
    """Require one real number."""
    try:
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError
        result: float = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be one number, got {value!r}") from None
    return result


def count(name: str, value: Any, at_least: int = 1) -> int:
    """Require a whole number of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
    return int(value)


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """Require one of the listed names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def unused(name: str, others: Sequence[str]) -> None:
    """Require that no option was given that has no meaning beside `name`."""
    if others:
        raise ValueError(f"{name} leaves no choice of {', '.join(others)}: give one or the other")


def at_least_dims(name: str, x: Tensor, dims: int, meaning: str) -> Tensor:
    """Require a minimum number of dimensions, none of them empty."""
    if x.ndim < dims:
        raise ValueError(f"{name} must have shape {meaning}, got {tuple(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"{name} must not be empty, got shape {tuple(x.shape)}")
    return x


def same_device(name: str, x: Tensor, device: torch.device, owner: str) -> Tensor:
    """Require `x` to live where `owner` lives."""
    if x.device != device:
        raise ValueError(f"{name} must be on the device of {owner} ({device}), got {x.device}")
    return x


def first_index(bad: Tensor) -> tuple[int, ...]:
    """Index of the first true entry."""
    flat = int(torch.argmax(bad.reshape(-1).to(torch.uint8)))
    return tuple(int(k) for k in np.unravel_index(flat, bad.shape))


def refuse(name: str, rule: str, x: Tensor, bad: Tensor) -> NoReturn:
    """Raise for the first bad entry of `x`."""
    at = first_index(bad)
    raise ValueError(f"{name} must {rule}, got {float(x[at]):.4g} at index {_index(at)}")


def _index(at: tuple[int, ...]) -> str:
    return str(at[0]) if len(at) == 1 else str(at)


def finite(name: str, x: Tensor) -> Tensor:
    """Require every entry to be finite."""
    _finite_range(name, x)
    return x


def _finite_range(name: str, x: Tensor) -> tuple[float, float]:
    low, high = (float(t) for t in torch.aminmax(x))
    if not (math.isfinite(low) and math.isfinite(high)):
        refuse(name, "be finite", x, ~torch.isfinite(x))
    return low, high


def weights(name: str, x: Tensor) -> Tensor:
    """Require finite, non-negative weights whose last dimension has some mass, not too much."""
    low, high = _finite_range(name, x)
    if low < 0:
        refuse(name, "be non-negative", x, x < 0)
    # a positive weight everywhere leaves nobody empty
    if low == 0 and bool((empty := x.amax(-1) <= 0).any()):
        where = f" in problem {_index(first_index(empty))}" if empty.ndim else ""
        raise ValueError(f"{name} must have some positive weight, got all zeros{where}")
    # what a plan makes of less would not be normal numbers
    if high < 1e-290 or (x.ndim > 1 and float(x.amax(-1).amin()) < 1e-290):
        mass = float(x.sum(-1, dtype=torch.float64).amin())
        if mass < 1e-290:
            raise ValueError(f"{name} must have a total weight above 1e-290, got {mass:.3g}")
    # KL(P | a b^T) multiplies two masses
    if high * x.shape[-1] >= 1e154:
        mass = float(x.sum(-1, dtype=torch.float64).amax())
        if mass >= 1e154:
            raise ValueError(f"{name} must have a total weight below 1e154, got {mass:.3g}")
    return x


def cost_entries(name: str, x: Tensor) -> tuple[float, float, bool]:
    """Require entries above -inf and no NaN.

    Returns:
        The smallest entry, the largest finite one, and whether inf forbids some pair.
    """
    low, high = (float(t) for t in torch.aminmax(x))
    if math.isnan(low) or low == -math.inf:
        bad = torch.isnan(x) | (x == -math.inf)
        refuse(name, "be a number above -inf", x, bad)
    if high < math.inf:
        return low, high, False
    if low == math.inf:
        raise ValueError(f"{name} must allow some pair, got inf everywhere")
    return low, float(x.masked_fill(x == math.inf, low).amax()), True
