"""Calls whose answers are constants: no gradient flows, and every later loss may hold them."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch


P = ParamSpec("P")
R = TypeVar("R")


def constant(call: Callable[P, R]) -> Callable[P, R]:
    """Return the call without gradients and out of inference mode, whose tensors no loss takes."""

    @wraps(call)
    def f(*args: P.args, **options: P.kwargs) -> R:
        with torch.no_grad():
            # tracing knows no inference mode, and needs to know none
            if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
                return call(*args, **options)
            # leaving it turns gradients on again
            with torch.inference_mode(False), torch.no_grad():
                return call(*args, **options)

    return f
