"""The form of the benchmark: problems, who solves them, and what was predicted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bench.gpu.clock import Act
from bench.gpu.device import Device


# the records of a problem that were measured, by who
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One way to solve a problem.

    Attributes:
        who: What it is called.
        prepare: Makes the call from the device and the inputs.
        needs: Module without which it is skipped.
        late: Whether it waits until all others are done, because it has much to compile.
        wall: Whether the host's clock must time it.
        exact: Whether its answer is the one that float64 gives.
        steps: Iterations of a call, where they are not the problem's own.
        note: What a reader must know.
    """

    who: str
    prepare: Callable[[Device, Any], Act]
    needs: str = ""
    late: bool = False
    wall: bool = False
    exact: bool = True
    steps: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Target:
    """A prediction: what it says, the figure that decides, and its bound.

    Attributes:
        says: The prediction in words.
        figure: Finds the figure in the finished rows of the problem; None if it was not measured.
        bound: Where it must lie.
        at_least: Whether the bound is the least value, rather than the most.
        note: What explains a figure on the other side.
    """

    says: str
    figure: Callable[[Rows], float | None]
    bound: float
    at_least: bool = True
    note: str = ""


@dataclass(frozen=True)
class Problem:
    """A problem at one size.

    Attributes:
        name: What it is called.
        kernel: The kernel whose checks must be green.
        make: Makes one set of inputs.
        truth: The answer in float64.
        distance: The distance of an answer from the truth.
        rows: Who solves it.
        steps: Iterations of a call.
        traffic: Bytes that an iteration must move at least.
        products: Operations of an iteration on tensor cores.
        pairs: Exponentials of an iteration.
        stored: Bytes of one set of inputs, which a cache might hold.
        targets: What was predicted.
    """

    name: str
    kernel: str
    make: Callable[[Device], Any]
    truth: Callable[[Any], Tensor]
    distance: Callable[[Tensor, Tensor], float]
    rows: tuple[Row, ...]
    steps: int = 1
    traffic: Callable[[Any], float] | None = None
    products: Callable[[Any], float] | None = None
    pairs: Callable[[Any], float] | None = None
    stored: Callable[[Any], int] = lambda _: 0
    targets: tuple[Target, ...] = ()


def of(who: str, key: str) -> Callable[[Rows], float | None]:
    """Return how to find a figure of one row."""
    return lambda rows: rows.get(who, {}).get(key)


def ratio(peer: str, ours: str) -> Callable[[Rows], float | None]:
    """Return how to find how many times as long the peer takes, like compared with like."""

    def figure(rows: Rows) -> float | None:
        both = [rows.get(who, {}) for who in (peer, ours)]
        # where one could not be captured, both count as called
        called = any("capture" in r for r in both)
        key = "called_per_iteration" if called else "seconds_per_iteration"
        theirs, mine = (r.get(key) for r in both)
        return theirs / mine if theirs and mine else None

    return figure
