"""Launches that cost the host little: a compiled kernel is kept by what decides it.

`kernel[grid](...)` binds names, specialises each argument, compares globals and asks hooks, every
time. What is compiled depends only on the constants, on the dtype of a pointer and whether 16
divides its address, and on a few classes of whole numbers. Here these make a key that is at least
as fine as triton's own, so that what triton chose once for a key is what it would choose again.
"""

import functools
from typing import Any, NamedTuple

import triton
from torch import Tensor
from triton.runtime import JITFunction


# releases whose compiled kernels are called as below; others launch as their makers do
_KNOWN = triton.__version__.split(".")[:2] in (["3", "6"], ["3", "7"], ["3", "8"], ["3", "9"])
# who replaces this, as the compile gate does, is to see every launch
_RUN = JITFunction.run
# where whole numbers need a wider type
_INT32, _INT64 = 1 << 31, 1 << 63


class _Kept(NamedTuple):
    """A compiled kernel and what its launcher takes besides the arguments."""

    run: Any
    function: Any
    metadata: Any
    constants: tuple[Any, ...]
    # so that no other object gets their ids, which stand in the key
    alive: tuple[Any, ...]


_KEPT: dict[tuple[Any, ...], _Kept] = {}


def launch(kernel: Any, grid: int, *args: Any, **constants: Any) -> None:
    """Launch `grid` programs of a jit function.

    The arguments that are not constants come first, in the order of its signature. Settings of
    triton, such as its debug mode, are those of the first launch with a key.

    Args:
        kernel: The jit function.
        grid: How many programs.
        *args: Tensors, numbers and tuples of these.
        **constants: `tl.constexpr` arguments and options of the compiler, such as `num_warps`.
    """
    if not _KNOWN or JITFunction.run is not _RUN or _watched(kernel):
        kernel[(grid,)](*args, **constants)
        return
    active = triton.runtime.driver.active
    device = active.get_current_device()
    kinds, values = _classify(args)
    key = (id(kernel), id(active), device, *kinds, *constants, *constants.values())
    kept = _KEPT.get(key)
    if kept is None:
        compiled = kernel[(grid,)](*args, **constants)
        # elsewhere more of an argument is looked at, such as how far a pointer reaches
        if compiled is not None and compiled.metadata.target.backend == "cuda":
            _KEPT[key] = _keep(kernel, compiled, active, len(args), constants)
        return
    stream = active.get_current_stream(device)
    kept.run(
        grid, 1, 1, stream, kept.function, kept.metadata, None, None, None,
        *values, *kept.constants,
    )  # fmt: skip


def _watched(kernel: Any) -> bool:
    """Say whether somebody has to be told of each launch, or no device makes it."""
    if type(kernel) is not JITFunction or kernel.pre_run_hooks:
        return True
    hooks = triton.knobs.runtime
    # a chain without links, or what an old profiler put in its place
    before, after = hooks.launch_enter_hook, hooks.launch_exit_hook
    return bool(getattr(before, "calls", before) or getattr(after, "calls", after))


def _keep(kernel: Any, compiled: Any, active: Any, given: int, constants: dict[str, Any]) -> _Kept:
    rest = list(kernel.signature.parameters.values())[given:]
    values = tuple(constants.get(p.name, p.default) for p in rest)
    run = compiled.run
    return _Kept(run, compiled.function, compiled.packed_metadata, values, (kernel, active))


def _classify(args: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """Return what decides the code, and the arguments with addresses in place of tensors."""
    kinds: list[Any] = []
    values: list[Any] = []
    for x in args:
        kind = type(x)
        if kind is int:
            kinds.append(_whole(x))
        elif kind is tuple:
            # strides
            kinds.append(tuple(map(_whole, x)))
        elif isinstance(x, Tensor):
            at = x.data_ptr()
            kinds.append((x.dtype,) if at & 15 else x.dtype)
            values.append(at)
            continue
        elif isinstance(x, tuple):
            inner, held = _classify(x)
            kinds.append((kind, *inner))
            values.append(tuple(held))
            continue
        else:
            # a constant in disguise, such as None, unless it is a number that no code depends on
            kinds.append(kind if kind is float else (kind, x))
        values.append(x)
    return kinds, values


@functools.lru_cache(4096)
def _whole(x: int) -> int:
    """Return the class of a whole number: one, or its width and whether 16 divides it."""
    if x == 1:
        return 1
    width = 2 if -_INT32 <= x < _INT32 else 4 if x < _INT64 else 6
    return width + (x & 15 == 0)
