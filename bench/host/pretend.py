"""Tensors that pose as a GPU's, so that the host's work for one is seen without any.

They live on the CPU and hold true numbers, but say that they are on a card: the package chooses as
it would there, and decisions that depend on values are made. Kernels run in triton's interpreter.
"""

import inspect
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only


CPU = torch.device("cpu")
# a Hopper, for launches that do nothing; and one that runs a program at a time, as the interpreter
# does, in which programs that wait for each other would wait for ever
WIDE, NARROW = torch.device("cuda", 0), torch.device("cuda", 1)
_MULTIPROCESSORS = {WIDE: 132, NARROW: 1}
# the one that tensors are on
_card = WIDE
# operators that make no kernel: they look at memory, or only get it
_FREE = (
    "empty", "view", "reshape", "expand", "slice", "select", "t", "transpose", "permute", "squeeze",
    "unsqueeze", "detach", "alias", "as_strided", "split", "unbind", "diagonal", "new_empty",
    "empty_like", "empty_strided", "_unsafe_view", "unfold", "lift_fresh", "_reshape_alias",
    "movedim", "swapaxes", "chunk", "narrow", "view_as", "flatten", "unflatten", "mT", "resize_",
    "set_", "split_with_sizes", "is_same_size", "_local_scalar_dense",
    "promote_types",
)  # fmt: skip
# methods after which the host knows a number, so it waited
_WAITS = (
    "item",
    "__bool__",
    "__float__",
    "__int__",
    "__index__",
    "tolist",
    "cpu",
    "numpy",
    "nonzero",
)


@dataclass
class Seen:
    """What the host did.

    Attributes:
        kernels: Launches of the package's kernels, by name.
        operators: Operators of PyTorch that launch something, by name.
        waits: How often the host waited for a number.
        inside: Seconds inside of PyTorch and kernels, and of counting them.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    waits: int = 0
    inside: float = 0.0

    @property
    def launches(self) -> int:
        """Kernels of the package and operators of PyTorch."""
        return self.kernels.total() + self.operators.total()


class OnCard(Tensor):
    """A tensor of the CPU that says it is a card's."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Answer what only a card's tensor is asked, and leave the rest to the tensor."""
        if func == _getter("device"):
            return _card
        if func == _getter("is_cuda"):
            return True
        return super().__torch_function__(func, types, args, kwargs or {})


def _getter(name: str) -> Any:
    """Return what PyTorch passes when an attribute is read."""
    return inspect.getattr_static(Tensor, name).__get__


def on_card(t: Tensor) -> Tensor:
    """Return the tensor as one of a card."""
    return t.as_subclass(OnCard)


def plain(tree: Any) -> Any:
    """Return tensors as what they are."""
    with torch._C.DisableTorchFunctionSubclass():
        return tree_map_only(OnCard, lambda t: t.as_subclass(Tensor), tree)


class _Api(TorchFunctionMode):
    """Sends what is asked of a card to the CPU, and what was made there back as a card's."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        operator = getattr(func, "_qualified_op_name", "")
        if operator.startswith("sinkhorn_ot::"):
            with self:
                return _by_kernels(operator)(*args, **(kwargs or {}))
        start = time.perf_counter()
        try:
            return self._answer(func, types, args, kwargs or {})
        finally:
            self._seen.inside += time.perf_counter() - start

    def _answer(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Let PyTorch do what is asked, where the numbers are."""
        name = getattr(func, "__name__", "")
        here = any(issubclass(t, OnCard) for t in types)
        if name in _WAITS and here:
            self._seen.waits += 1
            out = func(*plain(args), **kwargs)
            return on_card(out) if name == "nonzero" else out
        asked = [a for a in (*args, *kwargs.values()) if _is_device(a)]
        if not asked or name == "__get__" or func is torch.device:
            return func(*args, **kwargs)
        return self._moved(func, args, kwargs, here, torch.device(asked[0]))

    def _moved(
        self, func: Any, args: tuple[Any, ...], kwargs: Any, here: bool, to: torch.device
    ) -> Any:
        """Make or move a tensor where it says it is."""
        args = tuple(CPU if _is_device(a) else a for a in args)
        kwargs = {k: CPU if _is_device(a) else a for k, a in kwargs.items()}
        # there is nothing to pin memory for
        kwargs.pop("pin_memory", None)
        out = func(*args, **kwargs)
        if not isinstance(out, Tensor):
            return out
        if to.type == "cuda":
            return on_card(out)
        self._seen.waits += here
        return plain(out)


class _Operators(TorchDispatchMode):
    """Counts the operators that would launch something."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name not in _FREE:
            self._seen.operators[name] += 1
        return func(*args, **(kwargs or {}))


def _is_device(a: Any) -> bool:
    return isinstance(a, torch.device) or (isinstance(a, str) and a in ("cpu", "cuda", "cuda:0"))


def _by_kernels(operator: str) -> Callable[..., Any]:
    """Return what a card runs for an operator of the package."""
    from sinkhorn_ot.adapters.swav import operators
    from sinkhorn_ot.gradients.layer import operators as layer

    acts: dict[str, Callable[..., Any]] = {
        "codes": operators.launched(operators.codes_by_triton),
        "feature_codes": operators.launched(operators.feature_codes_by_triton),
        "normalize": layer.matrices_by_triton,
        "normalize_backward": layer.derivatives_by_triton,
    }  # fmt: skip
    return acts[operator.removeprefix("sinkhorn_ot::")]


@contextmanager
def watched(run: bool = True) -> Iterator[Seen]:
    """Count what the host does while the context lasts.

    Args:
        run: Whether kernels run, so that their numbers are true; else launches do nothing.
    """
    # dispatch modes import it, and it must see the true classes
    import torch._dynamo
    from triton.runtime.interpreter import InterpretedFunction

    global _card
    before, _card = _card, NARROW if run else WIDE
    seen = Seen()
    launch = InterpretedFunction.run

    def launched(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        seen.kernels[self.fn.__name__] += 1
        start = time.perf_counter()
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            if run:
                launch(self, *plain(args), grid=grid, warmup=warmup, **plain(options))
        seen.inside += time.perf_counter() - start

    stubs = {
        "torch.cuda.get_device_properties": _properties,
        "torch.Event": _event(seen),
        "triton.runtime.driver": _Driver(),
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(InterpretedFunction, "run", launched))
        for name, stub in stubs.items():
            stack.enter_context(mock.patch(name, stub))
        stack.enter_context(_Operators(seen))
        stack.enter_context(_Api(seen))
        stack.callback(_put_back, before)
        yield seen


def _put_back(card: torch.device) -> None:
    global _card
    _card = card


def _properties(device: torch.device) -> Any:
    count = _MULTIPROCESSORS[device]
    return SimpleNamespace(multi_processor_count=count, major=9, minor=0)


def _event(seen: Seen) -> Callable[..., Any]:
    """Return what makes events that have happened; to wait for one counts all the same."""

    def synchronize() -> None:
        seen.waits += 1

    def made(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(
            record=lambda *_: None,
            query=lambda: True,
            synchronize=synchronize,
            wait=lambda *_: None,
        )

    return made


class _Driver:
    """A driver whose card is a Hopper."""

    active = SimpleNamespace(
        get_current_target=lambda: SimpleNamespace(backend="cuda", arch=90, warp_size=32),
        utils=SimpleNamespace(get_device_properties=lambda *_: {"multiprocessor_count": 132}),
    )
