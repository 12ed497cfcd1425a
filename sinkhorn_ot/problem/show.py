"""What objects say of themselves: a line as `repr`, a table in a notebook, no tensor in full."""

import dataclasses
import functools
import html
import math
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn


T = TypeVar("T")

# characters of a line, and of a cell of a table
_LINE, _CELL = 240, 120
# numbers that are shown, and numbers that are read to show their range
_SHOWN, _READ = 4, 1000
# items of a list and characters of a text that are shown
_ITEMS, _TEXT = 8, 60
# what may be read; others are files, or stand for numbers that there are not
_HELD = (Tensor, nn.Parameter, np.ndarray)


def shown(cls: type[T]) -> type[T]:
    """Give a class a `repr` of one line, and a table for notebooks.

    Both show the fields of a dataclass or a named tuple and the public attributes of other objects,
    or what a method `_shown` returns. They compute nothing, and never wait for a device.
    """
    for name, method in (("__repr__", _line), ("_repr_html_", _table)):
        setattr(cls, name, method)
    return cls


@functools.singledispatch
def in_short(x: object) -> str:
    """Return a value in a few words; of an object that has nothing to say, its type."""
    return _line(x) if _has_parts(x) else type(x).__name__


@in_short.register(Integral)
@in_short.register(type(None))
@in_short.register(torch.device)
def _as_it_is(x: object) -> str:
    return str(x)


@in_short.register(Real)
def _(x: float) -> str:
    return f"{x:.4g}"


@in_short.register
def _(x: str) -> str:
    return repr(x if len(x) <= _TEXT else f"{x[: _TEXT - 3]}...")


@in_short.register
def _(x: torch.dtype) -> str:
    return str(x).removeprefix("torch.")


@in_short.register
def _(x: Enum) -> str:
    return x.name


@in_short.register(list)
@in_short.register(tuple)
def _sequence(x: Any) -> str:
    if _has_parts(x):
        return _line(x)
    if x and all(isinstance(item, Enum) for item in x):
        return _tally(x)
    if len(x) > _ITEMS:
        return f"{type(x).__name__} of {len(x)}"
    items = ", ".join(map(in_short, x))
    if isinstance(x, list):
        return f"[{items}]"
    return f"({items},)" if len(x) == 1 else f"({items})"


def _tally(x: Sequence[Enum]) -> str:
    times, kind = Counter(x), type(x[0])
    ordered = sorted(times, key=list(kind).index)
    return x[0].name if len(x) == 1 else ", ".join(f"{times[s]} {s.name}" for s in ordered)


@in_short.register(Tensor)
@in_short.register(np.ndarray)
def _array(x: Any) -> str:
    device = str(getattr(x, "device", "cpu"))
    numbers = _numbers(x) if device == "cpu" else []
    if numbers and x.ndim < 2 and len(numbers) <= _SHOWN:
        return in_short(numbers if x.ndim else numbers[0])
    what = f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
    if device != "cpu":
        return f"{what} on {device}"
    return f"{what} {_range(numbers)}" if numbers else what


def _numbers(x: Any) -> list[Any]:
    """Return the numbers, if they are few, real and there."""
    if type(x) not in _HELD or math.prod(x.shape) > _READ:
        return []
    try:
        found = x.reshape(-1).tolist()
    except (RuntimeError, AssertionError):
        # torch is tracing or vectorising, and lets nobody look
        return []
    return found if isinstance(next(iter(found), None), Real) else []


def _range(numbers: list[Any]) -> str:
    if isinstance(numbers[0], bool):
        return f"{sum(numbers)} true"
    if any(x != x for x in numbers):
        return "with nan"
    low, high = min(numbers), max(numbers)
    if low == high:
        return f"all {in_short(low)}"
    ends = in_short(low), in_short(high)
    return f"about {ends[0]}" if ends[0] == ends[1] else "..".join(ends)


def _has_parts(x: object) -> bool:
    return dataclasses.is_dataclass(x) or type(x).__repr__ is _line


def _parts(x: Any) -> dict[str, Any]:
    if hasattr(x, "_shown"):
        return dict(x._shown())
    if dataclasses.is_dataclass(x):
        names = [field.name for field in dataclasses.fields(x)]
    else:
        # of a named tuple there are none in its dictionary
        fields = getattr(x, "_fields", None)
        names = [k for k in vars(x) if not k.startswith("_")] if fields is None else fields
    # a debugger may come before all are set
    return {name: getattr(x, name) for name in names if hasattr(x, name)}


def _line(x: Any) -> str:
    """Return `Name(field=value, ...)`; where that is long, parts of parts are left out."""
    parts = _parts(x)
    words = {name: in_short(value) for name, value in parts.items()}
    long = sorted(filter(lambda k: _has_parts(parts[k]), parts), key=lambda k: -len(words[k]))
    while long and len(_joined(x, words)) > _LINE:
        name = long.pop(0)
        words[name] = f"{type(parts[name]).__name__}(...)"
    return _cut(_joined(x, words), _LINE)


def _joined(x: object, words: dict[str, str]) -> str:
    return f"{type(x).__name__}({', '.join(f'{name}={word}' for name, word in words.items())})"


def _table(x: Any) -> str:
    """Return a table in HTML; colours and fonts are those of the notebook."""
    left, name = 'style="text-align: left"', html.escape(type(x).__name__)
    rows = "".join(
        f"<tr><th {left}>{html.escape(field)}</th><td {left}>{html.escape(_cell(value))}</td></tr>"
        for field, value in _parts(x).items()
    )
    return f"<table><caption {left}>{name}</caption><tbody>{rows}</tbody></table>"


def _cell(value: object) -> str:
    return _cut(value if isinstance(value, str) else in_short(value), _CELL)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 3]}..."
