"""Argument checks. Each returns the value it checked, so that it can be used inline."""

import math
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad


FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
W = TypeVar("W", bound=str)

# what has no ways of its own
_PLAIN = (Tensor, torch.nn.Parameter, type(None))

# the insides of torch
_TORCH: Any = torch._C

# the largest whole number that others than Python count to
_COUNTED = 2**63 - 1
# numbers whose extremes NumPy finds sooner, for its calls are shorter
_FEW = 1 << 13


def tensor(name: str, x: Any, *, whole: bool = False, graph: bool = False) -> Tensor:
    """Return `x` as a floating-point strided tensor; arrays and lists are converted.

    Args:
        name: What messages call it.
        x: A tensor, an array or lists.
        whole: Whether whole numbers and truths are taken too, as float64.
        graph: Whether it may require grad or be inside a transform, and stays there.
    """
    t = strided(name, x) if isinstance(x, Tensor) else torch.from_numpy(array(name, x))
    # what is only marked as negated has no array
    t = t.resolve_neg()
    if whole and not (t.is_floating_point() or t.is_complex()):
        t = _exactly(name, t)
    if t.dtype not in FLOATS:
        raise ValueError(
            f"{name} must be floating point, got {_dtype(t)}: convert it, e.g. .float()"
        )
    return t if graph else constant(name, t)


def plain(name: str, t: Tensor) -> Tensor:
    """Require a strided tensor with numbers of its own, outside function transforms."""
    return strided(name, own(name, t))


def own(name: str, t: Tensor) -> Tensor:
    """Require a tensor that does not stand for others."""
    # a compiler sees through what it maps
    if not torch.compiler.is_compiling() and _wrapped(t):
        raise ValueError(
            f"{name} must be a tensor of its own, got one inside a transform of torch.func: call "
            "this outside of vmap, grad and jvp; leading dimensions are a batch"
        )
    return t


def strided(name: str, t: Tensor) -> Tensor:
    """Require one strided tensor of plain numbers."""
    if t.is_nested:
        raise ValueError(
            f"{name} must be one tensor, got a nested one: pad it, torch.nested.to_padded_tensor, "
            "and give what is padded a weight of zero"
        )
    if t.layout is not torch.strided:
        raise ValueError(
            f"{name} must be a strided tensor, got layout {t.layout}: pass .to_dense(), with inf "
            "where a pair is forbidden, for an entry that is missing is a zero"
        )
    if t.is_quantized:
        raise ValueError(f"{name} must not be quantised, got {_dtype(t)}: pass .dequantize()")
    return t


def present(name: str, t: Tensor) -> Tensor:
    """Require a tensor that holds numbers."""
    if t.device.type == "meta":
        raise ValueError(f"{name} must hold numbers, got a tensor on the meta device")
    return t


def transforming() -> bool:
    """Say whether a call is inside a transform of torch.func, or in forward mode."""
    # torch has no public word for either
    inside: bool = _TORCH._are_functorch_transforms_active()
    return inside or forward_ad._current_level >= 0


def transformed(t: Any) -> bool:
    """Say whether `t` stands for others, inside vmap, grad or jvp, or has a tangent."""
    return isinstance(t, Tensor) and (_wrapped(t) or _tangent(t))


def differentiated(t: Tensor) -> bool:
    """Say whether somebody waits for derivatives by `t`, whatever it stands for."""
    functions = _TORCH._functorch
    while functions.is_functorch_wrapped_tensor(t):
        if functions.is_gradtrackingtensor(t):
            return True
        t = functions.get_unwrapped(t)
    return t.requires_grad or _tangent(t)


def _wrapped(t: Tensor) -> bool:
    found: bool = _TORCH._functorch.is_functorch_wrapped_tensor(t)
    return found


def array(name: str, x: Any) -> Any:
    """Return real numbers as an array that torch takes, a copy."""
    if isinstance(x, np.ma.MaskedArray):
        raise ValueError(f"{name} must not be a masked array: give what is masked a value first")
    if hasattr(x, "toarray"):
        raise ValueError(
            f"{name} must be dense, got a {type(x).__name__}: pass .toarray(), with inf where "
            "a pair is forbidden, for an entry that is missing is a zero"
        )
    try:
        found = np.asarray(x)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be a tensor, an array or even lists of numbers") from None
    if found.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, got dtype {found.dtype}")
    if found.dtype.kind == "f" and found.dtype.itemsize > 8:
        raise ValueError(f"{name} must be at most float64, got dtype {found.dtype}")
    # torch takes neither negative strides, read-only memory nor foreign byte order
    return np.array(found, dtype=found.dtype.newbyteorder("="), order="C")


def numbers(name: str, x: Any) -> Tensor:
    """Return whole numbers as a tensor, such as those of rows."""
    t = present(name, plain(name, x)) if isinstance(x, Tensor) else torch.from_numpy(array(name, x))
    if t.is_floating_point() or t.is_complex() or t.dtype == torch.bool:
        # an empty list has no kind
        if t.numel():
            raise ValueError(f"{name} must be whole numbers, got {_dtype(t)}")
        t = t.to(torch.int64)
    return t


def _exactly(name: str, t: Tensor) -> Tensor:
    """Return whole numbers in float64, which must hold them."""
    found = t.double()
    if bool((found.abs() > 2**53).any()):
        refuse(name, "be whole numbers up to 2^53 or floating point", t, found.abs() > 2**53)
    return found


def constant(name: str, t: Tensor) -> Tensor:
    """Return `t` cut from the graph; require that nobody waits for its derivative."""
    own(name, t)
    if torch.is_grad_enabled():
        if t.requires_grad:
            raise ValueError(
                f"{name} requires grad, and gradients through this call are not supported yet: "
                f"pass {name}.detach() or call it under torch.no_grad()"
            )
        if _tangent(t):
            raise ValueError(
                f"{name} has a tangent, and forward derivatives through this call are not "
                f"supported: pass {name}.detach() or call it under torch.no_grad()"
            )
    return t.detach()


def _tangent(t: Tensor) -> bool:
    """Say whether `t` is a dual number of forward-mode differentiation."""
    inside = forward_ad._current_level >= 0 and not torch.compiler.is_compiling()
    return inside and forward_ad.unpack_dual(t).tangent is not None  # type: ignore[no-untyped-call]


def seen_through(*tensors: Tensor | None) -> bool:
    """Say whether something other than a device is to see a call: a compiler, a transform, a mode.

    Such has to be shown an operator, which costs the host more than the launches do.
    """
    # torch has no public word for these
    inside: Any = torch._C
    if torch.compiler.is_compiling() or inside._are_functorch_transforms_active():
        return True
    if inside._len_torch_dispatch_stack() or inside._len_torch_function_stack():
        return True
    # gradients of a whole batch of losses come as tensors that say nothing else of it
    batched = inside._functorch.is_legacy_batchedtensor
    return any(type(t) not in _PLAIN or (t is not None and batched(t)) for t in tensors)


def _dtype(t: Tensor) -> str:
    return str(t.dtype).removeprefix("torch.")


def positive(name: str, value: Any) -> float:
    """Require a finite number above zero."""
    result = number(name, value)
    # a compiler sees through comparisons alone
    if not 0 < result < math.inf:
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
    except OverflowError:
        raise ValueError(f"{name} must be a number that float64 holds, got a larger one") from None
    return result


def count(name: str, value: Any, at_least: int = 1) -> int:
    """Require a whole number of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
    if value > _COUNTED:
        raise ValueError(f"{name} must be a whole number below 2^63, got a larger one")
    return int(value)


def floating(name: str, value: Any) -> torch.dtype:
    """Require a floating-point dtype of torch."""
    if not isinstance(value, torch.dtype) or value not in FLOATS:
        raise ValueError(f"{name} must be a floating-point dtype of torch, got {value!r:.60}")
    return value


def device(name: str, value: Any) -> torch.device:
    """Require a device that is there and holds numbers; return it with its number."""
    try:
        found = torch.empty(0, device=value).device
    except (AssertionError, RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"{name} must be one that is there, got {value!r:.60}: {why}") from error
    if found.type == "meta":
        raise ValueError(f"{name} must hold numbers, got meta")
    return found


def flag(name: str, value: Any) -> bool:
    """Require True or False: of a tensor nobody knows whether it is asked for its truth."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r:.60}")
    return bool(value)


def callback(name: str, value: Any) -> Any:
    """Require None or something that is called with a `Progress`."""
    if value is not None and (not callable(value) or isinstance(value, type)):
        raise ValueError(f"{name} must be a function of a Progress, got {value!r}")
    return value


def one_of(name: str, value: Any, choices: Sequence[W]) -> W:
    """Require one of the listed names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return cast("W", value)


def unused(name: str, others: Sequence[str]) -> None:
    """Require that no option was given that has no meaning beside `name`."""
    if others:
        raise ValueError(f"{name} leaves no choice of {', '.join(others)}: give one or the other")


def at_least_dims(name: str, x: Tensor, dims: int, meaning: str, lacking: int = 0) -> Tensor:
    """Require a minimum number of dimensions, none empty but the one `lacking` from behind."""
    if x.ndim < dims:
        raise ValueError(f"{name} must have shape {meaning}, got {tuple(x.shape)}")
    if 0 in x.shape and (
        lacking == 0 or 0 in (*x.shape[:-lacking], *x.shape[x.ndim - lacking + 1 :])
    ):
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
    where = f" at index {place(at)}" if at else ""
    raise ValueError(f"{name} must {rule}, got {float(x[at]):.4g}{where}")


def place(at: tuple[int, ...]) -> str:
    """Return an index as text."""
    return str(at[0]) if len(at) == 1 else str(at)


def finite(name: str, x: Tensor) -> Tensor:
    """Require every entry to be finite."""
    _finite_range(name, x)
    return x


def full(shape: tuple[int, ...], value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor of one number, as torch.full does; on a CPU by NumPy, which calls faster."""
    if device.type != "cpu" or dtype != torch.float64:
        return torch.full(shape, value, dtype=dtype, device=device)
    held = np.empty(shape)
    held.fill(value)
    return torch.from_numpy(held)


def extremes(*tensors: Tensor) -> list[float]:
    """Return the least and the largest entry of each of some tensors of one dtype, in one wait."""
    if tensors[0].device.type == "cpu":
        # there is nothing to wait for, and what gathers takes longer than to read
        if sum(x.numel() for x in tensors) <= _FEW and tensors[0].dtype != torch.bfloat16:
            pair = np.minimum.reduce, np.maximum.reduce
            return [float(end(x.numpy(), axis=None)) for x in tensors for end in pair]
        return [float(end) for x in tensors for end in torch.aminmax(x)]
    ends = tensors[0].new_empty(2 * len(tensors))
    for x, low, high in zip(tensors, ends[::2], ends[1::2], strict=True):
        torch.aminmax(x, out=(low, high))
    found: list[float] = ends.tolist()
    return found


def _finite_range(name: str, x: Tensor) -> tuple[float, float]:
    low, high = extremes(x)
    if not (math.isfinite(low) and math.isfinite(high)):
        refuse(name, "be finite", x, ~torch.isfinite(x))
    return low, high


def weights(name: str, x: Tensor) -> Tensor:
    """Require finite, non-negative weights whose last dimension has some mass, not too much."""
    low, high = _finite_range(name, x)
    if low < 0:
        refuse(name, "be non-negative", x, x < 0)
    # a positive weight everywhere leaves nobody empty, one anywhere not the only one
    if high <= 0 or (low == 0 and x.ndim > 1 and bool((x.amax(-1) <= 0).any())):
        empty = x.amax(-1) <= 0
        where = f" in problem {place(first_index(empty))}" if empty.ndim else ""
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
    low, high = extremes(x)
    if math.isnan(low) or low == -math.inf:
        bad = torch.isnan(x) | (x == -math.inf)
        refuse(name, "be a number above -inf", x, bad)
    if high < math.inf:
        return low, high, False
    if low == math.inf:
        raise ValueError(f"{name} must allow some pair, got inf everywhere")
    return low, float(x.masked_fill(x == math.inf, low).amax()), True


def some(index: Sequence[int] | np.ndarray[Any, Any]) -> str:
    """Return the first of some numbers as text."""
    shown = ", ".join(map(str, index[:8]))
    return f"[{shown}]" if len(index) <= 8 else f"[{shown}, ...]"
