"""How a solve ended; the value of a status is the message shown to the user."""

import enum
import inspect
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch

from sinkhorn_ot.problem import checks, shown


Index = npt.NDArray[np.intp]

# what to do where a tolerance is not reached
OnFail = Literal["warn", "raise", "ignore"]
ON_FAIL: tuple[OnFail, ...] = get_args(OnFail)
# files whose lines no warning names: they are not the user's
_INSIDE = tuple(f"{at}{os.sep}" for at in (Path(__file__).parents[1], *torch.__path__))


class Status(enum.Enum):
    """How a solve ended. Ordered from best to worst."""

    OPTIMAL = "An exact plan, proved optimal by its dual potentials."
    CONVERGED = "The marginals match to within tol."
    FIXED = "Ran the n_iter sweeps asked for; read marginal_error to learn how far they went."
    STOPPED = "The callback stopped the solve before tol was reached."
    MAX_ITER = "Ran out of iterations: raise max_iter, or reg if there is one, or accept the error."
    BUDGET = "Ran out of the seconds it may take: raise seconds, or accept the gap."
    STALLED = (
        "The error stopped falling above tol. float64, another method or engine, or a larger reg "
        "if there is one, may bring it lower; if both marginals are exact and pairs are forbidden, "
        "check that a plan exists."
    )
    INFEASIBLE = "No plan exists: forbidden pairs leave some points with weight too few partners."
    NOT_FINITE = (
        "Potentials or masses left the range of floating-point numbers: check the scale of the "
        "cost against reg, and against unbalanced if it is given."
    )


_ORDER = list(Status)
# those that solved a problem, and what is said of a batch of which all did
_GOOD = {
    Status.OPTIMAL: "have exact plans, proved optimal by their dual potentials",
    Status.CONVERGED: "converged: their marginals match to within tol",
}


def worst(statuses: Sequence[Status]) -> Status:
    """Return the worst of some statuses; of none, that nothing is wrong."""
    return max(statuses, key=_ORDER.index, default=Status.CONVERGED)


def in_words(
    statuses: Sequence[Status], why: str = "", reached: str = "", kind: str = "problems"
) -> str:
    """Return how a batch ended, in sentences: how many did, what the worst status means, and more.

    Args:
        statuses: How each ended.
        why: A sentence on why, if more is known.
        reached: What the worst of the worst status reached, after that word.
        kind: What they are.
    """
    if not statuses:
        return f"There are no {kind}."
    many, ended = len(statuses), worst(statuses)
    failed = [s for s in statuses if s not in (*_GOOD, Status.FIXED)]
    who, first = "Reached", ended.value
    if many > 1:
        who = "It reached" if len(failed) == 1 else "The worst reached"
        if failed:
            first = f"{len(failed)} of {many} {kind} did not converge{_tallied(failed)}. {first}"
        elif ended in _GOOD:
            first = f"{'Both' if many == 2 else f'All {many}'} {kind} {_GOOD[ended]}."
    return " ".join(filter(None, (first, why, reached and f"{who} {reached}.")))


def after(error: float, sweeps: int) -> str:
    """Return what was reached and when, as a message goes on to say."""
    when = f" after {sweeps} iteration{'s' * (sweeps != 1)}" if sweeps else ""
    return f"marginal_error {error:.3g}{when}"


def _tallied(failed: list[Status]) -> str:
    """Return how many ended how, where they ended differently."""
    times = [f"{count} {s.name}" for s in reversed(_ORDER) if (count := failed.count(s))]
    return "" if len(times) == 1 else f": {', '.join(times)}"


@shown
class Stranded(NamedTuple):
    """Why there is no plan: some points hold more than all that they may use can take.

    Attributes:
        rows: Numbers of the points that hold too much.
        columns: Numbers of all points of the other side that they may use.
        held: What the first hold.
        taken: What the second take.
        kinds: What the two are called.
    """

    rows: Index
    columns: Index
    held: float
    taken: float
    kinds: tuple[str, str] = ("rows", "columns")

    def turned(self) -> "Stranded":
        """Return the same of the transposed problem."""
        return self._replace(kinds=self.kinds[::-1])

    def among(self, rows: Index, columns: Index) -> "Stranded":
        """Return the same of a larger problem, where its points have these numbers."""
        first, second = (rows, columns) if self.kinds[0] == "rows" else (columns, rows)
        return self._replace(rows=first[self.rows], columns=second[self.columns])

    def __str__(self) -> str:
        one, other = self.kinds
        held = f"{one} {checks.some(self.rows)} hold {self.held:.9g}"
        if len(self.columns) == 0:
            return f"{held} and may use none of the {other}"
        may = f"the {other} they may use, {checks.some(self.columns)}"
        return f"{held}, but {may}, take only {self.taken:.9g}"


class ConvergenceWarning(UserWarning):
    """A solve ended above its tolerance; the message says how far and why."""


class ConvergenceError(RuntimeError):
    """A solve ended above its tolerance and was told to raise; `.result` holds what it reached."""

    # of whatever call: its users know which
    result: Any

    def __init__(self, message: str, result: object) -> None:
        super().__init__(message)
        self.result = result


class Checked(Protocol):
    """A result that says how it ended."""

    @property
    def message(self) -> str:
        """One sentence on how it ended."""
        ...

    def check(self) -> object:
        """Return self, or raise `ConvergenceError`."""
        ...


def told(result: Checked, good: bool, on_fail: str) -> None:
    """Raise or warn of a result that is not good, as its caller asked.

    Args:
        result: The result.
        good: Whether nobody has to be warned of it.
        on_fail: "warn", "raise" `ConvergenceError`, "ignore".
    """
    if on_fail == "raise":
        result.check()
    elif not good:
        missed(result.message, result, on_fail)


def missed(message: str, result: object, on_fail: str) -> None:
    """Raise or warn of what ended above its tolerance, as its caller asked.

    Args:
        message: What ended, how far it came, and what to do.
        result: What it reached.
        on_fail: "warn", "raise" `ConvergenceError`, "ignore".
    """
    if on_fail == "raise":
        raise ConvergenceError(message, result)
    if on_fail == "warn":
        warnings.warn(message, ConvergenceWarning, stacklevel=_depth())


def _depth() -> int:
    """Return how many calls the line of the user is from the one that called this."""
    frame, depth = inspect.currentframe(), 0
    while frame is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame, depth = frame.f_back, depth + 1
    return depth
