"""Spares triton's interpreter most of its time, which goes into finding the same names again.

It replaces the functions of `triton.language` by its own at every launch, and then once more at
every call of a jit function from another, where they are replaced already. Looking for them takes
longer than most of these functions. Here one look for each module and launch is enough.
"""

import functools
from types import ModuleType
from typing import Any


def look_once(interpreter: ModuleType) -> None:
    """Change `triton.runtime.interpreter`, unless it is changed or this release is another."""
    patch = getattr(interpreter, "_patch_lang", None)
    executor = getattr(interpreter, "GridExecutor", None)
    if patch is None or executor is None or hasattr(patch, "__wrapped__"):
        return
    seen: set[int] = set()
    launch = executor.__call__

    @functools.wraps(launch)
    def launched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.clear()
        try:
            return launch(self, *args, **kwargs)
        finally:
            seen.clear()

    @functools.wraps(patch)
    def patched(fn: Any) -> Any:
        # a launch looks first, so that what it gets is what has to be restored after it
        if id(fn.__globals__) in seen:
            return None
        seen.add(id(fn.__globals__))
        return patch(fn)

    interpreter._patch_lang = patched
    executor.__call__ = launched
