"""Ours and its peers on one case, each at the loosest stop that arrives, in turn on one core.

Seconds are those of the processor: on one idle core the clock's, and on a busy one still ours.
The stop is searched outside the clock. A peer that takes many times what we take is stopped.
"""

import contextlib
import io
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from bench.cpu.cases import Case
from bench.cpu.measure import marginal_error
from bench.peers import ALL
from bench.ratios.row import Row


Run = Callable[[], Any]
# seconds that ours may take, and the least and the multiple of ours that a peer may
_OURS, _LEAST, _TIMES = 120.0, 0.5, 5.0
# how many times looser than its error says a stop may be to be tried
_FAR = 3.0
# seconds of turns, their number, and how far behind the best a peer may be to take part
_SPENT, _MOST, _NEAR = 0.5, 200, 2.0
# seconds of a turn that a short run is repeated for
_TURN = 5e-3


@dataclass(frozen=True)
class Entrant:
    """Who takes part.

    Attributes:
        name: What tables call it.
        prepare: Takes a stop and returns the run that is timed.
        error: Takes what a run returned and returns its error, outside the clock.
        stops: The stops to try, loosest first.
        package: What must be installed.
    """

    name: str
    prepare: Callable[[float], Run]
    error: Callable[[Any], float] = lambda _: 0.0
    stops: Sequence[float] = (0.0,)
    package: str = "sinkhorn_ot"


@dataclass(frozen=True)
class Arrival:
    """How an entrant came in: its run, the seconds of it, and its error."""

    run: Run
    seconds: float
    error: float


# who was stopped
LATE = Arrival(lambda: None, math.inf, math.inf)


def solver(name: str, case: Case, reg: float, error: float, stops: Sequence[float] = ()) -> Entrant:
    """Return a solver of `bench.peers`, judged by the marginals of its plan."""
    peer = ALL[name]
    posed = case if peer.zeros else case.stripped()
    loaded = cache(lambda: peer.load(posed, reg))
    return Entrant(
        name,
        lambda stop: loaded()(stop),
        lambda answer: marginal_error(answer.plan, posed.a, posed.b),
        stops or peer.stops(error),
        peer.package,
    )


def race(
    names: tuple[str, str], ours: Entrant, peers: Sequence[Entrant], error: float = math.inf
) -> Row | None:
    """Return the row of a family and a case; None where no peer is installed."""
    here = [peer for peer in peers if installed(peer)]
    if not here:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        mine = arrive(ours, error, _OURS)
        if mine in (None, LATE):
            return Row(*names, "none", math.inf, math.inf, error=error, our_error=math.inf)
        given = max(_LEAST, _TIMES * mine.seconds)
        found = {peer.name: arrive(peer, error, given) for peer in here}
        came = {name: at for name, at in found.items() if at not in (None, LATE)}
        least = min((at.seconds for at in came.values()), default=0.0)
        near = {name: at for name, at in came.items() if at.seconds <= max(_NEAR * least, 0.05)}
        seconds = in_turn({ours.name: mine, **near})
    took = seconds.pop(ours.name)
    if near:
        best = min(seconds, key=seconds.__getitem__)
        known = (best, took, seconds[best], False, error, mine.error, near[best].error)
        return Row(*names, *known, others=seconds)
    late = LATE in found.values()
    known = ("each peer", took, given) if late else ("none", took, math.inf)
    return Row(*names, *known, late, error, mine.error, math.inf)


@cache
def _is_here(package: str) -> bool:
    here = find_spec(package) is not None
    if not here:
        print(f"{package} is absent")
    return here


def installed(peer: Entrant) -> bool:
    """Whether a peer can take part; the first time it cannot is told."""
    return _is_here(peer.package)


def arrive(entrant: Entrant, error: float, given: float) -> Arrival | None:
    """Return the run of the loosest stop that arrives; None where none does.

    An error is about proportional to its stop: stops that are far too loose by that are not tried.
    """
    most = math.inf
    for stop in entrant.stops:
        if stop > most:
            continue
        try:
            run = entrant.prepare(stop)
            with patience(given):
                start = time.process_time()
                answer = run()
                seconds = time.process_time() - start
        except TimeoutError:
            # who is stricter takes longer
            return LATE
        # a peer that raises gives no answer, whatever it raises
        except Exception:
            if entrant.package == "sinkhorn_ot":
                raise
            continue
        reached = entrant.error(answer)
        if reached <= error:
            return Arrival(run, seconds, reached)
        if math.isfinite(reached):
            most = _FAR * stop * error / reached
    return None


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after so many seconds of the processor."""

    def late(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def in_turn(runs: dict[str, Arrival]) -> dict[str, float]:
    """Return the median seconds of each, run in turn; of long ones the first run counts.

    Short ones are run many times a turn, as in a loop: else each would find the caches full of the
    others' code, which costs those most that are quickest.
    """
    turn = sum(at.seconds for at in runs.values())
    turns = min(_MOST, int(_SPENT / max(turn, _TURN * len(runs))))
    if turn > 2 * _SPENT:
        return {name: at.seconds for name, at in runs.items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(max(3, turns)):
        for name, at in runs.items():
            # a clock that ticks says that a short run took nothing
            times = max(1, int(_TURN / max(at.seconds, 2e-4)))
            start = time.process_time()
            for _ in range(times):
                at.run()
            found[name].append((time.process_time() - start) / times)
    return {name: statistics.median(seconds) for name, seconds in found.items()}
