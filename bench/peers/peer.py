"""What a solver must look like: a case gives a function of a stop, which gives a run."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

from bench.cpu.cases import Case


class Answer(NamedTuple):
    """What every solver hands over, in whatever arrays it uses.

    Attributes:
        plan: The plan, (..., n, m).
        g: Column potentials in units of the cost, for P = a b^T exp((f + g - C) / reg), or what
            returns them, outside the clock; or None.
        said: Whether it calls itself converged; None where it does not say.
    """

    plan: Any
    g: Any = None
    said: bool | None = None


Run = Callable[[], Answer]
# everything up to the run is outside the clock: conversions, compilation
Prepare = Callable[[float], Run]


def thresholds(error: float) -> tuple[float, ...]:
    """Return the stops to try for an error, loosest first: not everyone means the same by it."""
    return tuple(error * share for share in (1.0, 0.3, 0.1, 0.01))


def once(error: float) -> tuple[float, ...]:
    """Return the error alone, for who means the same by it."""
    return (error,)


@dataclass(frozen=True)
class Peer:
    """A solver.

    Attributes:
        name: What tables call it.
        package: What must be installed.
        load: Takes a case and its reg, and returns how to prepare a run for a stop.
        stops: The stops to try for an error, loosest first.
        zeros: Whether it takes weights of zero; elsewhere it is given the case without them.
        exact: Whether it solves the problem without regularisation.
    """

    name: str
    package: str
    load: Callable[[Case, float], Prepare]
    stops: Callable[[float], tuple[float, ...]] = thresholds
    zeros: bool = False
    exact: bool = False

    @property
    def installed(self) -> bool:
        """Whether its package is here."""
        return find_spec(self.package) is not None
