"""What a check is: a function that returns the share of its error budget it spent, or raises."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.gpu.device import Device


@dataclass(frozen=True)
class Check:
    """One promise about one kernel.

    Attributes:
        kernel: Whose promise it is.
        name: What it says.
        run: Returns the share of the error budget that was spent, or raises.
        toy: Whether it differs from the others at toy sizes.
    """

    kernel: str
    name: str
    run: Callable[[Device], float]
    toy: bool = True


def checks(kernel: str, act: Callable[..., float], table: dict[str, Any]) -> list[Check]:
    """Return a check for each row of a table from names to arguments of `act`."""
    return [Check(kernel, name, partial(act, **how)) for name, how in table.items()]
