"""What came of one case, and the watch that ends what does not end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType


# from good to bad
OUTCOMES = ("converged", "refused", "missed", "gave up", "slow", "wrong")
# seconds after which a case is ended, and of processor time above which one that ended is slow: all
# the sweeps that a solve may take are ten seconds of calls
CAP, SLOW = 120.0, 15.0


@dataclass
class Verdict:
    """What came of one case.

    Attributes:
        outcome: One of `OUTCOMES`. "missed" is what the oracle misses too, or was given too few
            sweeps; "gave up" what the oracle solves; "refused" a `ValueError` that is right.
        told: What was asked for.
        faults: What is wrong, a line each.
    """

    outcome: str = "converged"
    told: str = ""
    faults: list[str] = field(default_factory=list)

    def at_least(self, outcome: str) -> None:
        """Make the outcome as bad as this one, if it is better."""
        self.outcome = max(self.outcome, outcome, key=OUTCOMES.index)

    def wrong(self, fault: str) -> None:
        """Note a fault."""
        self.faults.append(fault)
        self.at_least("wrong")

    def require(self, holds: bool, fault: str) -> None:
        """Note a fault unless it holds."""
        if not holds:
            self.wrong(fault)

    def near(self, name: str, got: float, want: float, allowed: float) -> None:
        """Note a fault unless two numbers are as near as allowed; NaN is near nothing."""
        off = 0.0 if got == want else abs(got - want)
        if not off <= allowed:
            self.wrong(f"{name} is {got:.12g}, not {want:.12g}: {off:.3g} off, {allowed:.3g} given")


class Hangs(BaseException):
    """Raised inside a call that does not end; no `except Exception` holds it."""


@contextmanager
def watched(seconds: float) -> Iterator[None]:
    """Raise `Hangs` in what takes longer."""

    def rung(number: int, frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, rung)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
