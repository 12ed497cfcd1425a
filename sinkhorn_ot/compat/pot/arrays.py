"""NumPy in, NumPy out, torch in, torch out: what a call of POT was given, and how it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import TypeAliasType

from sinkhorn_ot.problem import checks, shown


# what came in, and so does what a call answers with
Kind = TypeVar("Kind", Tensor, npt.NDArray[Any])
Numbers = TypeAliasType("Numbers", Tensor | npt.NDArray[Any])
# none, or an empty list, is the same weight for each
Weights = TypeAliasType("Weights", Numbers | Sequence[float] | None)
# of both marginals alike, or of each
Penalties = TypeAliasType("Penalties", float | Numbers | Sequence[float | None])
# a tensor, or of arrays a number of NumPy, or an array of several: the caller knows which
Costs = Any
# of random numbers: a number, a generator, or whatever comes
Seed = TypeAliasType("Seed", int | np.random.RandomState | np.random.Generator | None)
# what POT writes down: numbers, arrays, text
Log = dict[str, Any]


@shown
@dataclass(frozen=True)
class Form:
    """How a call is answered: in arrays or in tensors, and of which dtype.

    Attributes:
        dtype: Of arrays, or of tensors.
        tensors: Whether tensors came in.
    """

    dtype: Any
    tensors: bool

    def out(self, t: Tensor) -> Any:
        """Return a tensor as the caller expects it; one number of arrays is a NumPy scalar."""
        if self.tensors:
            return t.to(self.dtype)
        return t.detach().numpy().astype(self.dtype, copy=False)[()]


def taken(cost: Any, *weights: Any) -> tuple[Form, Any, list[Any]]:
    """Return how to answer, costs or points in the dtype of the answer, and weights.

    Lists take the kind and the dtype of what is beside them, and those without entries are None.

    Args:
        cost: Costs, or points.
        weights: Weights, or further points; None where there are none.

    Raises:
        ValueError: If arrays stand beside tensors.
    """
    if all(type(x) is np.ndarray and x.dtype == np.float64 and x.size for x in (cost, *weights)):
        # most calls: the rest takes longer than a small problem
        return _DOUBLES, cost, list(weights)
    if hasattr(cost, "tiles"):
        # points whose derivatives somebody waits for
        form = _of_tensors([cost.x])
        return form, cost, [None if _nothing(x) else _as(x, form, cost.device) for x in weights]
    _dense(cost, *weights)
    held = [x for x in (cost, *weights) if not (x is None or isinstance(x, (list, tuple)))]
    tensors = [x for x in held if isinstance(x, Tensor)]
    if tensors and len(tensors) < len(held):
        raise ValueError("arguments must all be NumPy arrays or all be tensors, got some of each")
    form = _of_tensors(tensors) if tensors else _of_arrays(held)
    device = tensors[0].device if tensors else None
    given = [None if _nothing(x) else _as(x, form, device) for x in (cost, *weights)]
    if given[0] is None:
        raise ValueError("M must hold costs, got nothing")
    return form, _floating(given[0], form), given[1:]


def float64(t: Any) -> Any:
    """Return numbers as a float64 array, or tensors whose derivatives somebody waits for alone."""
    if t is None:
        return None
    if isinstance(t, Tensor):
        if t.device.type != "cpu" or checks.differentiated(t) or checks.transforming():
            return t.double()
        t = t.detach()
        t = t.double().numpy() if t.dtype == torch.bfloat16 else t.numpy()
    return np.asarray(t, np.float64)


def known(options: Mapping[str, object], names: tuple[str, ...]) -> None:
    """Require options that POT has: it takes any others too, and says nothing."""
    for name in options:
        if name not in names:
            raise TypeError(f"got an unexpected keyword argument {name!r}")


_DOUBLES = Form(np.dtype(np.float64), False)


def _dense(*given: Any) -> None:
    for x in given:
        if hasattr(x, "toarray") or (isinstance(x, Tensor) and x.layout is not torch.strided):
            raise ValueError(
                f"arguments must be dense, got a sparse {type(x).__name__}: fill it, with inf in M "
                "where a pair is forbidden, for an entry that is missing is a zero"
            )


def _nothing(x: Any) -> bool:
    return x is None or (len(x) == 0 if hasattr(x, "__len__") and np.ndim(x) else False)


def _of_tensors(tensors: list[Tensor]) -> Form:
    floats = [t.dtype for t in tensors if t.is_floating_point()]
    dtype = floats[0] if floats else torch.get_default_dtype()
    for other in floats[1:]:
        dtype = torch.promote_types(dtype, other)
    return Form(dtype, True)


def _of_arrays(arrays: list[Any]) -> Form:
    dtype = np.result_type(*arrays) if arrays else np.dtype(np.float64)
    return Form(dtype if dtype.kind == "f" else np.dtype(np.float64), False)


def _as(x: Any, form: Form, device: torch.device | None) -> Any:
    """Return lists as what is beside them, and anything else as it is."""
    if not isinstance(x, (list, tuple)):
        return x
    array = np.asarray(x, np.float64)
    return torch.as_tensor(array, dtype=form.dtype, device=device) if form.tensors else array


def _floating(x: Any, form: Form) -> Any:
    return x.to(form.dtype) if form.tensors else np.asarray(x).astype(form.dtype, copy=False)
