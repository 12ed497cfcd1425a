"""What objects are made of: the same again, with other things in place of some of its parts."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar


T = TypeVar("T")

# what stands for something, given what makes the same of its parts; INSIDE: its parts decide
Act = Callable[[Any, Callable[[Any], Any]], Any]
INSIDE: Any = object()


def again(x: Any, act: Act) -> Any:
    """Return an object as it is, but for what `act` has in place of its parts.

    Parts are fields of dataclasses and items of tuples, lists and dicts. What is there twice is
    made once. Numbers that were kept when they were first asked for are not among them.
    """
    done: dict[int, tuple[Any, Any]] = {}

    def inner(part: Any) -> Any:
        if id(part) not in done:
            found = act(part, inner)
            # the part is kept, so that nothing else gets its number
            done[id(part)] = part, _inside(part, inner) if found is INSIDE else found
        return done[id(part)][1]

    return inner(x)


def _inside(x: Any, inner: Callable[[Any], Any]) -> Any:
    kind: Any = type(x)
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        return made(type(x), {name: inner(part) for name, part in parts(x).items()})
    if kind in (tuple, list):
        return kind(map(inner, x))
    if kind is dict:
        return {key: inner(part) for key, part in x.items()}
    return x


def parts(x: Any) -> dict[str, Any]:
    """Return the fields of a dataclass or a named tuple."""
    return {name: getattr(x, name) for name in names_of(type(x))}


def names_of(kind: Any) -> list[str]:
    """Return the names of the fields of dataclasses or named tuples of a kind."""
    return [f.name for f in fields(kind)] if is_dataclass(kind) else list(kind._fields)


def made(kind: type, given: dict[str, Any]) -> Any:
    """Return a dataclass or a named tuple of parts that have been checked."""
    if not is_dataclass(kind):
        return kind(**given)
    new = object.__new__(kind)
    for name, part in given.items():
        object.__setattr__(new, name, part)
    return new


def held(x: Any, kind: type[T]) -> list[T]:
    """Return all parts of a kind that an object is made of."""
    found: list[T] = []

    def collect(part: Any, _: Callable[[Any], Any]) -> Any:
        if isinstance(part, kind):
            found.append(part)
        return INSIDE

    again(x, collect)
    return found
