"""What `torch.compile` is not to look into: loops that end when numbers say so."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from sinkhorn_ot.problem import Names


P = ParamSpec("P")
T = TypeVar("T")

# why a graph breaks where one is called
_WHY = (
    "does what numbers say, which no graph holds: compile without fullgraph, call it outside, or "
    "give solve n_iter"
)
# functions as the compiler leaves them alone, once they have met it
_LEFT_ALONE: dict[Callable[..., Any], Callable[..., Any]] = {}


def uncompiled(act: Callable[P, T]) -> Callable[P, T]:
    """Return a function that a compiled step calls as it is.

    The compiler would follow every turn of the loop and compile it again for other numbers. And
    arguments that others call otherwise are answered here.
    """
    names = Names(act)

    @functools.wraps(act)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        names.check(kwargs)
        if torch.compiler.is_compiling():
            # asked for only there: it imports the compiler
            if act not in _LEFT_ALONE:
                why = f"{act.__name__} {_WHY}"
                _LEFT_ALONE[act] = torch.compiler.disable(act, reason=why)  # type: ignore[no-untyped-call]
            found: T = _LEFT_ALONE[act](*args, **kwargs)
            return found
        return act(*args, **kwargs)

    return call
